"""Does confidence keep its word: `python benchmarks/accuracy/calibration.py [path/to/data] [--ckpt …]`.

Of the points that are said to be near their labels (within 5 % of the outer-eye distance) with some chance, that share
should be. On the test parts of 300-W and of youtube_faces (moved onto 300-W's convention), people never seen, in the
label's box; confidence was calibrated on the validation parts, in training. Prints points in ten bins, and the expected
calibration error (Naeini et al., 2015): the mean of |said - true| over them.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from fkp.calibration import WITHIN, reliability
from fkp.console import track
from fkp.data.image_cache import face_boxes
from fkp.files.images import read_image
from fkp.inference.predictor import Predictor
from fkp.metrics import point_errors

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share
from sets import last_line, parser, source  # noqa: E402


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--part", default="test")
    told = arguments.parse_args()
    predictor = Predictor.load(told.ckpt)
    figures: dict[str, float] = {}
    for name in ("300w", "youtube_faces"):
        faces = source(name, told.data, data="real").read().split("strict")[told.part]
        boxes, sure, error = face_boxes(faces, predictor.markup), [], []
        for path, box, label in track(
            zip(faces.paths, boxes, faces.points, strict=True), name, len(faces)
        ):
            (face,) = predictor(read_image(path, predictor.gray), boxes=box[None])
            sure.append(face.confidence)
            error.append(point_errors(face.points, label, predictor.markup))
        bins = reliability(torch.tensor(np.array(sure)), torch.tensor(np.array(error)) < WITHIN)
        print(f"{name}, {len(faces)} faces:  said  true")
        for said, true, _ in bins:
            print(f"{100 * said:22.1f}{100 * true:6.1f}")
        gaps, counts = zip(*((abs(said - true), count) for said, true, count in bins), strict=True)
        figures[f"{name}_calibration_error"] = 100 * float(np.average(gaps, weights=counts))
        figures[f"{name}_near"] = 100 * float(np.mean(np.array(error) < WITHIN))
        figures[f"{name}_said"] = 100 * float(np.mean(sure))
    print(last_line(figures, 2))


if __name__ == "__main__":
    main()
