"""Compare the detectors: recall, precision and time.

    python benchmarks/robustness/detectors.py [path/to/data] [--yunet path/to/yunet.onnx]

The photos are the publisher's 770 test rows of youtube_faces and the validation split of 300-W,
with one labelled face in each. Recall is the percentage of faces that a box overlaps as much as
evaluation requires; precision is the percentage of boxes that do so (a second, unlabelled face
counts as a false box). Both are measured before and after boxes with uncertain points are dropped
(`min_confidence`). NME is raw, over the faces that are found. The times are median milliseconds of
detection alone; the detectors take turns on each photo.
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fkp import Predictor
from fkp.console import track
from fkp.data.image_cache import face_boxes
from fkp.data.table import FaceTable
from fkp.detectors import Detector, HaarCascade, YuNet
from fkp.files.images import read_image
from fkp.geometry import overlap
from fkp.inference.evaluation import SAME_FACE
from fkp.markup import IBUG68
from fkp.metrics import nme

# The modules that the benchmarks share.
sys.path.insert(0, str(Path(__file__).parents[1]))
from sets import last_line, parser, source  # noqa: E402


class _Timed:
    """Wrap a detector and record its times in milliseconds."""

    def __init__(self, detector: Detector):
        self.detector, self.times = detector, list[float]()

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        began = time.perf_counter()
        found = self.detector(image)
        self.times.append(1000 * (time.perf_counter() - began))
        return found


@dataclass
class Counts:
    """Count the boxes of a detector over photos with one labelled face each."""

    photos: int = 0
    found: int = 0
    correct: int = 0
    boxes: int = 0

    def add(self, correct: list[bool]) -> None:
        """Add a photo, by whether each of its boxes is correct."""
        self.photos += 1
        self.found += any(correct)
        self.correct += sum(correct)
        self.boxes += len(correct)

    def metrics(self) -> dict[str, float]:
        """Return recall and precision in percent, and the number of false boxes."""
        return {
            "recall": 100 * self.found / self.photos,
            "precision": 100 * self.correct / max(self.boxes, 1),
            "false": self.boxes - self.correct,
        }


@dataclass
class Result:
    """Collect what a detector finds: all boxes, those of confident faces, and errors (NME)."""

    every: Counts = field(default_factory=Counts)
    confident: Counts = field(default_factory=Counts)
    errors: list[float] = field(default_factory=list)


def measure(
    predictors: dict[str, Predictor], faces: FaceTable, min_confidence: float, title: str
) -> dict[str, Result]:
    """Detect and predict on each photo with each predictor in turn."""
    results = {name: Result() for name in predictors}
    rows = zip(faces.paths, face_boxes(faces, IBUG68), faces.points, strict=True)
    for path, box, label in track(rows, title, len(faces)):
        image = read_image(path)
        for name, predictor in predictors.items():
            found = predictor(image)
            correct = [overlap(face.box, box) >= SAME_FACE for face in found]
            confident = [face.confidence.mean() >= min_confidence for face in found]

            result = results[name]
            result.every.add(correct)
            result.confident.add([c for c, keep in zip(correct, confident, strict=True) if keep])
            if any(correct):
                first = found[correct.index(True)]
                result.errors.append(float(nme(first.points, label, IBUG68)))
    return results


def read_options() -> argparse.Namespace:
    """Read the command line."""
    arguments = parser(__doc__)
    arguments.add_argument("--yunet", help="YuNet's model file")
    arguments.add_argument("--every", type=int, default=1, help="use every n-th photo only")
    return arguments.parse_args()


def main() -> None:
    """Measure, count and print."""
    options = read_options()
    timed = {"haar": _Timed(HaarCascade())}
    if options.yunet:
        timed["yunet"] = _Timed(YuNet(options.yunet))
    predictors = {
        name: Predictor.load(options.ckpt, detector, min_confidence=0)
        for name, detector in timed.items()
    }
    min_confidence = Predictor.load(options.ckpt).min_confidence

    youtube = source("youtube_faces", options.data).read()
    sets = {
        "official": youtube.select(youtube.official == "test"),
        "300w_val": source("300w", options.data).read().split("identity")["val"],
    }

    metrics: dict[str, float] = {}
    for place, faces in sets.items():
        faces = faces.select(slice(None, None, options.every))
        table = Table("", "recall", "precision", "false boxes", "NME raw", "ms")
        for name, result in measure(predictors, faces, min_confidence, place).items():
            error = 100 * statistics.mean(result.errors)
            ms = statistics.median(timed[name].times)
            every, confident = result.every.metrics(), result.confident.metrics()

            metrics |= {f"{place}_{name}_unfiltered_{key}": value for key, value in every.items()}
            metrics |= {f"{place}_{name}_{key}": value for key, value in confident.items()}
            metrics |= {f"{place}_{name}_nme": error, f"{place}_{name}_ms": ms}
            for title, row in ((f"{name}, all boxes", every), (name, confident)):
                percents = (f"{row['recall']:.2f}", f"{row['precision']:.2f}")
                table.add_row(title, *percents, str(row["false"]), f"{error:.2f}", f"{ms:.1f}")
        Console(width=100).print(f"{place}: {len(faces)} photos", table)
    print(last_line(metrics))


if __name__ == "__main__":
    main()
