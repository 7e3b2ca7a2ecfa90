"""How long a user waits for points: `python benchmarks/speed/predict.py [path/to/photos] [--dlib …] [--mediapipe …]`.

Photos: $FKP_SHARED/photos, if not given. In rounds, each tool in turn within one, so that a noisy machine hurts all
alike; medians. dlib is its HOG detector without upsampling, the quickest it can be, and the 68-point predictor.
  cold        from typing to points of one photo: `python predict.py image=…`, which also draws; four lines of Python
              (`library`); and the peers' own lines (peers.py)
  photo       one photo in a running process, detection and points
  landmarks   crops to points by onnxruntime, a face, by threads and batch; one look (the predictor takes two)
  memory      largest of `python predict.py`; of a stream, after 500 pictures and at its end (--stream 5000; 0: none)

    --rounds 7      --yunet …   YuNet's file      --ckpt …
"""

import argparse
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

import numpy as np

from fkp import Predictor, painter
from fkp.detectors import Detector, HaarCascade, YuNet
from fkp.files.images import read_image
from fkp.inference.onnx_engine import OnnxEngine
from fkp.weights import EXPORTED, shipped

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share
from peers import PEERS, Peer, available  # noqa: E402

ROOT = Path(__file__).parents[2]
LIBRARY = (
    "import sys; from fkp import Predictor; print(len(Predictor.load(sys.argv[2])(sys.argv[1])))"
)


def seconds_of(call: Callable[..., object], *arguments: object) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def cold_peer(name: str, python: str, photo: str) -> None:
    """A peer from nothing to points."""
    peer = Peer(name, python)
    peer(photo, upsampling=0)
    peer.child.kill()
    peer.child.wait()


def ran(cwd: Path, *command: str) -> float:
    """Run Python; its largest memory, MB."""
    with subprocess.Popen(
        [sys.executable, *command], cwd=cwd, stdout=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return usage.ru_maxrss / 1000


def memory_mb() -> float:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def streamed(predictor: Predictor, count: int) -> dict[str, float]:
    """Memory after 500 pictures of a stream, and at its end."""
    drawn = [painter.paint(1, i)[0] for i in range(50)]

    def pictures() -> Iterator[np.ndarray]:
        for i in range(count):
            yield np.roll(drawn[i % len(drawn)], i, 1)

    early = 0.0
    for number, _ in enumerate(predictor.stream(pictures())):
        early = memory_mb() if number == min(500, count // 2) else early
    return {"stream_500_mb": early, "stream_end_mb": memory_mb()}


def main() -> None:
    """Measure and print."""
    shared = os.environ.get("FKP_SHARED")
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("photos", type=Path, nargs="?", default=Path(shared or ".") / "photos")
    for peer in PEERS:
        arguments.add_argument(f"--{peer}", default=sys.executable)
    arguments.add_argument("--yunet")
    arguments.add_argument("--ckpt", default="")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--stream", type=int, default=5000)
    told = arguments.parse_args()
    photos = [
        str(path) for path in sorted(told.photos.iterdir()) if path.suffix in (".jpg", ".png")
    ]
    model = told.ckpt or str(shipped(EXPORTED))
    times: dict[str, list[float]] = defaultdict(list)
    peers = available({name: getattr(told, name) for name in PEERS})

    peak = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(told.rounds):
            photo = photos[number % len(photos)]
            began = time.perf_counter()
            peak = max(
                peak, ran(Path(folder), str(ROOT / "predict.py"), f"image={photo}", f"ckpt={model}")
            )
            times["cold"].append(time.perf_counter() - began)
            times["cold_library"].append(seconds_of(ran, ROOT, "-c", LIBRARY, photo, model))
            for name in peers:
                times[f"cold_{name}"].append(
                    seconds_of(cold_peer, name, getattr(told, name), photo)
                )

    detectors: dict[str, Detector] = {"": HaarCascade()}
    if told.yunet:
        detectors["_yunet"] = YuNet(told.yunet)
    predictors = {name: Predictor.load(model, detector) for name, detector in detectors.items()}
    pictures = {photo: read_image(photo) for photo in photos}
    for number in range(told.rounds + 1):
        for photo in photos:
            taken = {
                f"photo{name}": seconds_of(predictor, pictures[photo])
                for name, predictor in predictors.items()
            }
            for name, peer in peers.items():
                answer = peer(photo, upsampling=0)
                taken[f"photo_{name}"] = (answer["detect_ms"] + answer["points_ms"]) / 1000
            for name, value in taken.items() if number else ():  # the first round warms up
                times[name].append(value)

    some = next(iter(predictors.values()))
    crop = some.crop(
        np.ascontiguousarray(painter.paint(1, 0)[0][..., 0]), np.array([[40.0, 40.0, 180.0, 180.0]])
    )[0]
    engines = (
        {threads: OnnxEngine(Path(model), threads) for threads in (1, 2)}
        if model.endswith(".onnx")
        else {}
    )
    for _ in range(20 * told.rounds):
        for threads, engine in engines.items():
            for batch in (1, 32):
                crops = np.repeat(crop, batch, 0)
                times[f"landmarks_{threads}_{batch}"].append(seconds_of(engine, crops) / batch)

    middle = {name: statistics.median(values) for name, values in times.items()}
    figures = {f"{name}_s": value for name, value in middle.items() if name.startswith("cold")}
    figures |= {
        f"{name}_ms": 1000 * value
        for name, value in middle.items()
        if name.startswith(("photo", "landmarks"))
    }
    if engines:
        figures["landmarks_1_thread_ms"] = figures["landmarks_1_1_ms"]
        figures["landmarks_batch_32_ms"] = figures["landmarks_2_32_ms"]
    quickest = min(value for name, value in middle.items() if name in ("photo", "photo_yunet"))
    for name in peers:
        figures[f"cold_over_{name}"] = middle["cold"] / middle[f"cold_{name}"]
        figures[f"cold_library_over_{name}"] = middle["cold_library"] / middle[f"cold_{name}"]
        figures[f"photo_over_{name}"] = quickest / middle[f"photo_{name}"]
    figures["peak_mb"] = peak
    if told.stream:
        figures |= streamed(some, told.stream)
    for name, value in figures.items():
        print(f"{name:28}{value:10.2f}")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
