"""Measure the time of YuNet by onnxruntime beside OpenCV's, and of each detector by smallest face.

    python benchmarks/speed/detector.py path/to/photo --yunet path/to/yunet.onnx [--rounds 21]

All use one thread and take turns in each round; the results are medians, and ratios of minima,
which a busy machine changes least. The photo is resized to a longer side of 160, 320 and 640 pixels
for YuNet itself; to 640 pixels, and to 2000, for the detectors as a user calls them.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from fkp.detectors import Detector, HaarCascade, YuNet
from fkp.files.images import read_image

# The modules that the benchmarks share.
sys.path.insert(0, str(Path(__file__).parents[1]))
from sets import last_line  # noqa: E402

SIDES = (160, 320, 640)
LARGE = 2000


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """Resize an image to this longer side."""
    factor = side / max(image.shape)
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def of_opencv(model: str, image: np.ndarray, min_score: float) -> Callable[[], object]:
    """Return a call of OpenCV's YuNet, with the conversion to its order of colours."""
    twin = cv2.FaceDetectorYN.create(model, "", image.shape[1::-1], min_score)
    return lambda: twin.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def searching(detector: Detector, image: np.ndarray) -> Callable[[], object]:
    """Return a call of a detector."""
    return lambda: detector(image)


def take_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the times of each call in milliseconds, after one call to warm up."""
    times: dict[str, list[float]] = defaultdict(list)
    for turn in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn:
                times[name].append(1000 * (time.perf_counter() - began))
    return times


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("photo", type=Path)
    arguments.add_argument("--yunet", required=True, help="YuNet's model file")
    arguments.add_argument("--rounds", type=int, default=21)
    options = arguments.parse_args()
    cv2.setNumThreads(1)

    photo, yunet = read_image(options.photo), YuNet(options.yunet)
    calls: dict[str, Callable[[], object]] = {}
    for side in SIDES:
        image = resized(photo, side)
        as_is = YuNet(options.yunet, smallest=yunet.pixels, turned=False)
        calls[f"opencv_{side}"] = of_opencv(options.yunet, image, yunet.min_score)
        calls[f"yunet_{side}"] = searching(as_is, image)
    for side in (SIDES[-1], LARGE):
        image = resized(photo, side)
        calls[f"photo_{side}_yunet"] = searching(yunet, image)
        tenth = YuNet(options.yunet, smallest=0.1, pixels=20)
        calls[f"photo_{side}_yunet_tenth"] = searching(tenth, image)
        calls[f"photo_{side}_haar"] = searching(HaarCascade(), image)

    times = take_turns(calls, options.rounds)
    metrics = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    for side in SIDES:
        ratio = min(times[f"yunet_{side}"]) / min(times[f"opencv_{side}"])
        metrics[f"yunet_over_opencv_{side}"] = ratio
    for name, value in metrics.items():
        print(f"{name:28}{value:8.2f}")
    print(last_line(metrics))


if __name__ == "__main__":
    main()
