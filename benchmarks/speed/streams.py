"""Measure how much faster a stream of photos is than a plain loop, on one core and on two.

    python benchmarks/speed/streams.py [path/to/photos] [--yunet MODEL] [--cores 1 2]

For each number of cores, a process that may use only these takes turns:
  loop        [predictor(path) for path in paths]
  stream      list(predictor.stream(paths)), with as many threads as cores
  folder      the same with results: JSON and annotated JPEG; by one thread (`folder_loop`), by all
The results are medians, in milliseconds per photo: time, and processor time (`_cpu_ms`), which
other programs on the machine disturb less. The ratios are of speeds, 2 is twice as many photos per
second; names without a number of cores are of the most cores:
  stream_over_loop      the stream against the loop as a user writes it. OpenCV's cascade and
                        onnxruntime share one image among the cores, so this loop uses several, too.
  folder_over_loop      the same of folders
  stream_over_one_core  the stream on the most cores against the loop on the fewest
Photos are read from $FKP_SHARED/photos by default, with all folders below it.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from fkp import Predictor
from fkp.detectors import HaarCascade, YuNet
from fkp.inference.media import ImageCollection, find
from fkp.inference.writers import PredictionWriter

Times = dict[str, list[float]]


def measure(folder: Path, yunet: str | None, count: int, rounds: int, many: Path) -> Times:
    """Time loops and streams in this process: seconds per photo, and those of processors.

    Args:
        folder: of photos.
        yunet: the detector's file.
        count: number of photos; they are repeated.
        rounds: of each run.
        many: an empty folder, for copies of the photos.
    """
    found = find(str(folder))
    assert isinstance(found, ImageCollection), folder
    photos = [path for path in found.paths if path not in found.videos][:count]
    paths = (photos * count)[:count]
    copies = [many / f"{i}{path.suffix}" for i, path in enumerate(paths)]
    for path, copy in zip(paths, copies, strict=True):
        shutil.copy(path, copy)
    predictor = Predictor.load(detector=YuNet(yunet) if yunet else HaarCascade())
    cores = len(os.sched_getaffinity(0))

    def write(threads: int) -> None:
        with tempfile.TemporaryDirectory() as out:
            writer = PredictionWriter(predictor, Path(out), {}, "jpg", threads=threads)
            writer.write_collection(ImageCollection(copies, many))

    # The work, and the number of its photos.
    runs = {
        "loop": (lambda: [predictor(path) for path in paths], count),
        "stream": (lambda: list(predictor.stream(paths)), count),
        "folder_loop": (lambda: write(1), count),
        "folder": (lambda: write(cores), count),
    }
    times: Times = defaultdict(list)
    # The first round warms up.
    for number in range(rounds + 1):
        for name, (run, size) in runs.items():
            began, processor = time.perf_counter(), time.process_time()
            run()
            if number:
                times[name].append((time.perf_counter() - began) / size)
                times[f"{name}_cpu"].append((time.process_time() - processor) / size)
    return times


def measure_on(cores: int, *arguments: str) -> Times:
    """Time loops and streams in a process that may use so many cores."""
    own = sorted(os.sched_getaffinity(0))[:cores]
    command = ["taskset", "-c", ",".join(map(str, own)), sys.executable, __file__, "--child"]
    done = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def summarise(times: dict[int, Times]) -> dict[str, float]:
    """Compute the medians by number of cores, and their ratios."""
    metrics: dict[str, float] = {}
    for cores, by_name in times.items():
        middle = {name: statistics.median(values) for name, values in by_name.items()}
        for name, value in middle.items():
            run, cpu, _ = name.partition("_cpu")
            metrics[f"{run}_{cores}{cpu}_ms"] = 1000 * value
        metrics[f"stream_over_loop_{cores}"] = middle["loop"] / middle["stream"]
        metrics[f"folder_over_loop_{cores}"] = middle["folder_loop"] / middle["folder"]
    fewest, most = min(times), max(times)
    for name in ("stream_over_loop", "folder_over_loop"):
        metrics[name] = metrics[f"{name}_{most}"]
    metrics["stream_over_one_core"] = metrics[f"loop_{fewest}_ms"] / metrics[f"stream_{most}_ms"]
    return metrics


def main() -> None:
    """Measure and print."""
    shared = os.environ.get("FKP_SHARED")
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = arguments.add_argument
    add("photos", type=Path, nargs="?", default=Path(shared or ".") / "photos")
    add("--yunet", default="", help="YuNet's model file; without it, the Haar cascade detects")
    add("--cores", type=int, nargs="+", default=[1, 2])
    add("--count", type=int, default=128, help="photos of a round; few photos are repeated")
    add("--rounds", type=int, default=9)
    add("--child", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()

    if options.child:
        with tempfile.TemporaryDirectory() as many:
            values = (options.photos, options.yunet, options.count, options.rounds)
            print(json.dumps(measure(*values, Path(many))))
        return
    sizes = ("--count", str(options.count), "--rounds", str(options.rounds))
    times = {
        cores: measure_on(cores, str(options.photos), "--yunet", options.yunet, *sizes)
        for cores in options.cores
    }
    metrics = summarise(times)
    for name, value in metrics.items():
        print(f"{name:28}{value:10.2f}")
    print(json.dumps({name: round(value, 4) for name, value in metrics.items()}))


if __name__ == "__main__":
    main()
