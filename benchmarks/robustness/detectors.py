"""Which detector finds the faces: `python benchmarks/robustness/detectors.py [path/to/data] [--yunet path/to/yunet.onnx]`.

On the publisher's 770 test rows of youtube_faces and the validation photos of 300-W, one labelled face in each. Recall
is the share of them that a box overlaps as evaluation asks; precision the share of boxes that do (a second, unlabelled
face in a photo counts against it); before and after boxes whose points are unsure are dropped (`min_confidence`). NME
is raw, of the faces found; ms a photo are detection alone, medians, each detector in turn on each photo.

    --ckpt …        other weights than the shipped ones        --every 1       of the photos
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fkp import Predictor
from fkp.console import track
from fkp.data.image_cache import face_boxes
from fkp.detectors import Detector, HaarCascade, YuNet
from fkp.files.images import read_image
from fkp.geometry import overlap
from fkp.inference.evaluation import SAME_FACE
from fkp.markup import IBUG68
from fkp.metrics import nme

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share
from sets import last_line, parser, source  # noqa: E402


class _Timed:
    """A detector that notes how long it takes."""

    def __init__(self, detector: Detector):
        self.detector, self.times = detector, list[float]()

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        began = time.perf_counter()
        found = self.detector(image)
        self.times.append(1000 * (time.perf_counter() - began))
        return found


def main() -> None:
    """Count and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--yunet")
    arguments.add_argument("--every", type=int, default=1)
    told = arguments.parse_args()
    timed = {"haar": _Timed(HaarCascade())} | (
        {"yunet": _Timed(YuNet(told.yunet))} if told.yunet else {}
    )
    keen = {
        name: Predictor.load(told.ckpt, detector, min_confidence=0)
        for name, detector in timed.items()
    }
    least = Predictor.load(told.ckpt).min_confidence
    youtube = source("youtube_faces", told.data).read()
    sets = {
        "official": youtube.select(youtube.official == "test"),
        "300w_val": source("300w", told.data).read().split("identity")["val"],
    }
    figures: dict[str, float] = {}
    for place, faces in sets.items():
        faces = faces.select(slice(None, None, told.every))
        boxes = face_boxes(faces, IBUG68)
        rows = {
            (name, sure): [0, 0, 0] for name in keen for sure in (False, True)
        }  # found, right, boxes
        errors: dict[str, list[float]] = {name: [] for name in keen}
        for path, box, label in track(
            zip(faces.paths, boxes, faces.points, strict=True), place, len(faces)
        ):
            image = read_image(path)
            for name, predictor in keen.items():
                seen = [(overlap(face.box, box) >= SAME_FACE, face) for face in predictor(image)]
                for sure in (False, True):
                    left = [
                        right for right, face in seen if not sure or face.confidence.mean() >= least
                    ]
                    counts = rows[name, sure]
                    counts[0], counts[1], counts[2] = (
                        counts[0] + any(left),
                        counts[1] + sum(left),
                        counts[2] + len(left),
                    )
                errors[name] += [
                    float(nme(face.points, label, IBUG68)) for right, face in seen if right
                ][:1]
        table = Table("", "recall", "precision", "false boxes", "NME raw", "ms")
        for (name, sure), (hits, right, count) in rows.items():
            recall, precision = 100 * hits / len(faces), 100 * right / max(count, 1)
            error, ms = 100 * statistics.mean(errors[name]), statistics.median(timed[name].times)
            end = f"{place}_{name}" if sure else f"{place}_{name}_unfiltered"
            figures |= {
                f"{end}_recall": recall,
                f"{end}_precision": precision,
                f"{end}_false": count - right,
            }
            figures |= {f"{end}_nme": error, f"{end}_ms": ms} if sure else {}
            title = name if sure else f"{name}, all boxes"
            table.add_row(
                title,
                f"{recall:.2f}",
                f"{precision:.2f}",
                str(count - right),
                f"{error:.2f}",
                f"{ms:.1f}",
            )
        Console(width=100).print(f"{place}: {len(faces)} photos", table)
    print(last_line(figures))


if __name__ == "__main__":
    main()
