"""What youtube_faces calls each point, beside what 300-W's labels call it.

    python train.py experiment=heatmap data=300w data.root=…
    python benchmarks/accuracy/conventions.py path/to/best.ckpt [path/to/data]

A network that has seen 300-W alone looks at training faces of youtube_faces, upright and in a mirror; the median of
what their labels differ by from its points, less what it errs by on validation faces of its own set, is the offset of
each point in the eye-line frame: fkp/data/youtube_faces_offsets.csv, which `data.labels=human` takes out.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from fkp.console import track
from fkp.data.image_cache import face_boxes
from fkp.data.shapes import convention, moved
from fkp.data.table import FaceTable
from fkp.data.youtube_faces import OFFSETS
from fkp.files.images import read_image
from fkp.inference.predictor import Predictor
from fkp.metrics import nme

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share
from sets import FOLDER, source  # noqa: E402


def found(predictor: Predictor, faces: FaceTable) -> np.ndarray:
    """(F, K, 2): the points in pictures, the mean of what is found in each and in its mirror image."""
    points = []
    boxes = face_boxes(faces, predictor.markup)
    for path, box in track(zip(faces.paths, boxes, strict=True), "looking", len(faces)):
        image = read_image(path, gray=predictor.gray)
        width = image.shape[1]
        mirror = np.array([width - 1 - box[2], box[1], width - 1 - box[0], box[3]])
        upright = predictor(image, boxes=box[None])[0].points
        mirrored = predictor(np.ascontiguousarray(image[:, ::-1]), boxes=mirror[None])[0].points
        points.append(
            (
                upright
                + (np.array([width - 1, 0]) + mirrored[predictor.markup.flip_indices] * (-1, 1))
            )
            / 2
        )
    return np.array(points)


def main(ckpt: str, data: str = str(FOLDER)) -> None:
    """Fit, write and print the offsets."""
    predictor = Predictor.load(ckpt)
    markup = predictor.markup
    here, there = (
        source(name, Path(data)).read().split("identity") for name in ("youtube_faces", "300w")
    )
    train, val, own = here["train"], here["val"], there["val"]
    points = found(predictor, train)
    error = convention(found(predictor, own), own.points, markup)
    offsets = convention(points, train.points, markup) - error
    pd.DataFrame(offsets.round(4), markup.points, ["x", "y"]).to_csv(OFFSETS, index_label="point")
    seen = found(predictor, val)
    figures = {
        "faces": len(train),
        "right": round(100 * float(offsets[:, 0].mean()), 2),
        "low": round(100 * float(offsets[:, 1].mean()), 2),
        "nme_raw": round(100 * float(nme(seen, val.points, markup).mean()), 2),
        "nme_moved": round(
            100 * float(nme(moved(seen, offsets, markup), val.points, markup).mean()), 2
        ),
    }
    for name in markup.regions:
        part = 100 * offsets[markup.region(name)].mean(0)
        print(f"{name:16}{part[0]:7.2f} right {part[1]:7.2f} low, % of the outer-eye distance")
    print(
        f"written: {Path(OFFSETS).name}; validation faces, NME {figures['nme_raw']} -> {figures['nme_moved']}"
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
