"""Draw the example images of the documentation.

    python benchmarks/accuracy/pictures.py outputs/<date>/<time>

The argument is the folder of a run with the default configuration.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np

from fkp.draw import visualize_output
from fkp.files.images import read_image, write_image
from fkp.geometry import apply, compose, face_box, rescaling, translation, warp
from fkp.painter import paint
from fkp.runs.results import TEST_FACES

DOCS = Path(__file__).parents[2] / "docs"


def synthetic_faces(count: int = 24, side: int = 150) -> np.ndarray:
    """Draw a grid of the first synthetic faces of seed 0, every second one with its points."""
    crops, points = [], []
    for index in range(count):
        image, label = paint(0, index)

        # A square crop with a margin round the face box.
        left, top, right, _ = face_box(label).astype(float)
        margin = 0.25 * (right - left)
        scale = side / (right - left + 2 * margin)
        to_crop = compose(translation(margin - left, margin - top), rescaling(scale))

        crops.append(warp(image, to_crop, (side, side)))
        points.append(apply(to_crop, label) if index % 2 else np.full_like(label, np.nan))
    return visualize_output(crops, points, columns=8, side=side)


def main(run: str) -> None:
    """Write the images into docs/, small enough to commit."""
    write_image(DOCS / "synthetic_faces.jpg", synthetic_faces())
    grid = read_image(Path(run) / TEST_FACES)
    smaller = cv2.resize(grid, None, fx=0.85, fy=0.85, interpolation=cv2.INTER_AREA)
    write_image(DOCS / "test_faces.jpg", smaller)
    print(json.dumps({path.name: path.stat().st_size for path in sorted(DOCS.glob("*.jpg"))}))


if __name__ == "__main__":
    main(sys.argv[1])
