"""Measure how long a user waits for points, and how much memory prediction takes.

    python benchmarks/speed/predict.py [path/to/photos] [--dlib …] [--mediapipe …]

Photos are read from $FKP_SHARED/photos by default. The tools take turns within each round, so that
a noisy machine affects all alike; the results are medians. dlib is its HOG detector without
upsampling, its fastest, and the 68-point predictor.
  cold        from the command to the points of one photo: `python predict.py image=…`, which also
              draws; four lines of Python (`library`); and the lines of the peers (peers.py)
  photo       one photo in a running process, detection and points; `photo_same_smallest` is YuNet
              that searches as coarsely as MediaPipe, for faces of a tenth of the image
  landmarks   crops to points by onnxruntime, per face, by threads and batch size; one refinement
              step (the predictor runs two)
  memory      the peak of `python predict.py`; of a stream, after 500 images and at its end
"""

import argparse
import inspect
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fkp import Predictor, painter
from fkp.detectors import Detector, HaarCascade, YuNet
from fkp.files.images import read_image
from fkp.inference.onnx_engine import OnnxEngine
from fkp.weights import EXPORTED, shipped

# The modules that the benchmarks share.
sys.path.insert(0, str(Path(__file__).parents[1]))
from peers import PEERS, Peer, available  # noqa: E402

ROOT = Path(__file__).parents[2]
LIBRARY = (
    "import sys; from fkp import Predictor; print(len(Predictor.load(sys.argv[2])(sys.argv[1])))"
)
THREADS, BATCHES = (1, 2), (1, 32)

# Seconds by name.
Times = dict[str, list[float]]


def seconds_of(call: Callable[..., object], *arguments: object) -> float:
    """Measure how long a call takes."""
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def cold_peer(name: str, python: str, photo: str) -> None:
    """Start a peer, find the points of one photo, and stop it."""
    peer = Peer(name, python)
    peer(photo, upsampling=0)
    peer.child.kill()
    peer.child.wait()


def run_python(cwd: Path, *command: str) -> float:
    """Run Python; return its peak memory in MB."""
    with subprocess.Popen(
        [sys.executable, *command], cwd=cwd, stdout=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return usage.ru_maxrss / 1000


def memory_mb() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def time_cold(photos: list[str], model: str, pythons: dict[str, str], rounds: int) -> Times:
    """Time the tools from their start; `peak_mb` is the memory of `predict.py`."""
    times: Times = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            photo = photos[number % len(photos)]
            script = (str(ROOT / "predict.py"), f"image={photo}", f"ckpt={model}")

            began = time.perf_counter()
            times["peak_mb"].append(run_python(Path(folder), *script))
            times["cold"].append(time.perf_counter() - began)

            times["cold_library"].append(seconds_of(run_python, ROOT, "-c", LIBRARY, photo, model))
            for name, python in pythons.items():
                times[f"cold_{name}"].append(seconds_of(cold_peer, name, python, photo))
    return times


def time_photos(
    photos: list[str], predictors: dict[str, Predictor], peers: dict[str, Peer], rounds: int
) -> Times:
    """Time detection and points of each photo in running processes."""
    times: Times = defaultdict(list)
    images = {photo: read_image(photo) for photo in photos}

    # The first round warms up.
    for number in range(rounds + 1):
        for photo, image in images.items():
            taken = {name: seconds_of(predictor, image) for name, predictor in predictors.items()}
            for name, peer in peers.items():
                answer = peer(photo, upsampling=0)
                taken[f"photo_{name}"] = (answer["detect_ms"] + answer["points_ms"]) / 1000
            for name, value in taken.items() if number else ():
                times[name].append(value)
    return times


def time_landmarks(predictor: Predictor, model: str, rounds: int) -> Times:
    """Time the network by onnxruntime, per face, by number of threads and batch size."""
    image = np.ascontiguousarray(painter.paint(1, 0)[0][..., 0])
    crop = predictor.crop(image, np.array([[40.0, 40.0, 180.0, 180.0]]))[0]
    engines = {threads: OnnxEngine(Path(model), threads) for threads in THREADS}

    times: Times = defaultdict(list)
    for _ in range(rounds):
        for threads, engine in engines.items():
            for batch in BATCHES:
                crops = np.repeat(crop, batch, 0)
                times[f"landmarks_{threads}_{batch}"].append(seconds_of(engine, crops) / batch)
    return times


def coarse_yunet(model: str) -> YuNet:
    """Make a YuNet that finds faces from a tenth of the image, as MediaPipe's detector does."""
    if "smallest" in inspect.signature(YuNet).parameters:
        settings: dict[str, Any] = {"smallest": 0.1}
    else:
        settings = {"longest": 160, "tile_scale": 0}
    return YuNet(model, **settings)


def stream_memory(predictor: Predictor, count: int) -> dict[str, float]:
    """Measure memory after 500 images of a stream, and at its end."""
    drawn = [painter.paint(1, i)[0] for i in range(50)]

    def images() -> Iterator[np.ndarray]:
        for i in range(count):
            yield np.roll(drawn[i % len(drawn)], i, 1)

    early = 0.0
    for number, _ in enumerate(predictor.stream(images())):
        early = memory_mb() if number == min(500, count // 2) else early
    return {"stream_500_mb": early, "stream_end_mb": memory_mb()}


def summarise(times: Times, peers: list[str]) -> dict[str, float]:
    """Compute the medians, and their ratios to those of the peers."""
    middle = {name: statistics.median(values) for name, values in times.items()}
    metrics = {f"{name}_s": value for name, value in middle.items() if name.startswith("cold")}
    metrics |= {
        f"{name}_ms": 1000 * value
        for name, value in middle.items()
        if name.startswith(("photo", "landmarks"))
    }
    if "landmarks_1_1" in middle:
        metrics["landmarks_1_thread_ms"] = metrics["landmarks_1_1_ms"]
        metrics["landmarks_batch_32_ms"] = metrics["landmarks_2_32_ms"]

    # fkp with its fastest detector, over each peer.
    fastest = min(value for name, value in middle.items() if name in ("photo", "photo_yunet"))
    for name in peers:
        metrics[f"cold_over_{name}"] = middle["cold"] / middle[f"cold_{name}"]
        metrics[f"cold_library_over_{name}"] = middle["cold_library"] / middle[f"cold_{name}"]
        metrics[f"photo_over_{name}"] = fastest / middle[f"photo_{name}"]
        if "photo_same_smallest" in middle:
            same = middle["photo_same_smallest"] / middle[f"photo_{name}"]
            metrics[f"photo_over_{name}_same_smallest"] = same
    return metrics


def read_options() -> argparse.Namespace:
    """Read the command line."""
    shared = os.environ.get("FKP_SHARED")
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = arguments.add_argument
    add("photos", type=Path, nargs="?", default=Path(shared or ".") / "photos")
    for peer in PEERS:
        add(f"--{peer}", default=sys.executable, help=f"a Python with {peer}")
    add("--yunet", help="YuNet's model file")
    add("--ckpt", default="", help="other weights than the shipped ones")
    add("--rounds", type=int, default=7)
    add("--stream", type=int, default=5000, help="number of images of the stream; 0: none")
    return arguments.parse_args()


def main() -> None:
    """Measure and print."""
    options = read_options()
    photos = [
        str(path) for path in sorted(options.photos.iterdir()) if path.suffix in (".jpg", ".png")
    ]
    model = options.ckpt or str(shipped(EXPORTED))
    peers = available({name: getattr(options, name) for name in PEERS})
    pythons = {name: getattr(options, name) for name in peers}

    # Cold starts.
    times = time_cold(photos, model, pythons, options.rounds)
    peak = max(times.pop("peak_mb", []), default=0.0)

    # Photos in running processes.
    detectors: dict[str, Detector] = {"photo": HaarCascade()}
    if options.yunet:
        detectors["photo_yunet"] = YuNet(options.yunet)
        detectors["photo_same_smallest"] = coarse_yunet(options.yunet)
    predictors = {name: Predictor.load(model, detector) for name, detector in detectors.items()}
    times |= time_photos(photos, predictors, peers, options.rounds)

    # The network alone.
    if model.endswith(".onnx"):
        times |= time_landmarks(predictors["photo"], model, 20 * options.rounds)

    metrics = summarise(times, list(peers)) | {"peak_mb": peak}
    if options.stream:
        metrics |= stream_memory(predictors["photo"], options.stream)
    for name, value in metrics.items():
        print(f"{name:28}{value:10.2f}")
    print(json.dumps({name: round(value, 4) for name, value in metrics.items()}))


if __name__ == "__main__":
    main()
