"""Compare confidence with the fraction of points that are within 5 % of their labels.

    python benchmarks/accuracy/calibration.py [path/to/data] [--ckpt …]

Confidence is the predicted probability that a point lies within 5 % of the outer-eye distance of
its label. It is measured on the test splits of 300-W and of youtube_faces (labels moved to the
convention of 300-W), people not seen in training, with the face box of the label. Confidence was
calibrated on the validation splits, during training.

Prints the points in ten bins, and the expected calibration error (Naeini et al., 2015): the mean
of |confidence - fraction| over the points, bin by bin.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from fkp.calibration import WITHIN, reliability
from fkp.console import track
from fkp.data.image_cache import face_boxes
from fkp.data.table import FaceTable
from fkp.files.images import read_image
from fkp.inference.predictor import Predictor
from fkp.metrics import point_errors

# The modules that the benchmarks share.
sys.path.insert(0, str(Path(__file__).parents[1]))
from sets import last_line, parser, source  # noqa: E402


def measure(predictor: Predictor, faces: FaceTable, title: str) -> tuple[np.ndarray, np.ndarray]:
    """Predict the points of faces.

    Returns:
        The confidence (F, K) and the error (F, K), a fraction of the outer-eye distance.
    """
    boxes = face_boxes(faces, predictor.markup)
    rows = zip(faces.paths, boxes, faces.points, strict=True)

    confidences, errors = [], []
    for path, box, label in track(rows, title, len(faces)):
        (face,) = predictor(read_image(path, predictor.gray), boxes=box[None])
        confidences.append(face.confidence)
        errors.append(point_errors(face.points, label, predictor.markup))
    return np.array(confidences), np.array(errors)


def main() -> None:
    """Measure and print the calibration on both sets."""
    arguments = parser(__doc__)
    arguments.add_argument("--part", default="test", help="split of the faces")
    options = arguments.parse_args()
    predictor = Predictor.load(options.ckpt)

    metrics: dict[str, float] = {}
    for name in ("300w", "youtube_faces"):
        faces = (
            source(name, options.data, data="youtube_faces_300w")
            .read()
            .split("strict")[options.part]
        )
        confidence, error = measure(predictor, faces, name)
        bins = reliability(torch.tensor(confidence), torch.tensor(error) < WITHIN)

        print(f"{name}, {len(faces)} faces: mean confidence, fraction within 5 %")
        for mean, fraction, _ in bins:
            print(f"{100 * mean:22.1f}{100 * fraction:6.1f}")

        gaps = [abs(mean - fraction) for mean, fraction, _ in bins]
        counts = [count for *_, count in bins]
        metrics[f"{name}_calibration_error"] = 100 * float(np.average(gaps, weights=counts))
        metrics[f"{name}_near"] = 100 * float(np.mean(error < WITHIN))
        metrics[f"{name}_said"] = 100 * float(np.mean(confidence))
    print(last_line(metrics, 2))


if __name__ == "__main__":
    main()
