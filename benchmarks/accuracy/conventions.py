"""Measure the offsets between the label conventions of youtube_faces and 300-W.

    python train.py experiment=heatmap data=300w data.root=…
    python benchmarks/accuracy/conventions.py path/to/best.ckpt [path/to/data]

A network that was trained on 300-W alone predicts the points of the training faces of
youtube_faces, in each image and in its mirror image. The offset of a point is the median difference
between label and prediction, minus the same median on the validation faces of 300-W, in the frame
of the eye line. The result is fkp/data/youtube_faces_offsets.csv, which `data.labels=human`
subtracts.
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

# The modules that the benchmarks share.
sys.path.insert(0, str(Path(__file__).parents[1]))
from sets import FOLDER, source  # noqa: E402


def predict(predictor: Predictor, faces: FaceTable) -> np.ndarray:
    """Predict points (F, K, 2), each the mean over an image and its mirror image, IMAGE pixels."""
    points = []
    boxes = face_boxes(faces, predictor.markup)
    for path, box in track(zip(faces.paths, boxes, strict=True), "predicting", len(faces)):
        image = read_image(path, gray=predictor.gray)
        last = image.shape[1] - 1
        mirror_box = np.array([last - box[2], box[1], last - box[0], box[3]])

        upright = predictor(image, boxes=box[None])[0].points  # (K, 2)
        mirror_image = np.ascontiguousarray(image[:, ::-1])
        mirrored = predictor(mirror_image, boxes=mirror_box[None])[0].points  # (K, 2)

        # Mirror the points back.
        back = np.array([last, 0]) + mirrored[predictor.markup.flip_indices] * (-1, 1)
        points.append((upright + back) / 2)
    return np.array(points)


def main(ckpt: str, data: str = str(FOLDER)) -> None:
    """Fit, write and print the offsets."""
    predictor = Predictor.load(ckpt)
    markup = predictor.markup
    youtube, hand_labelled = (
        source(name, Path(data)).read().split("identity") for name in ("youtube_faces", "300w")
    )
    train, val, own = youtube["train"], youtube["val"], hand_labelled["val"]

    # Fit the offsets, without the network's own bias.
    points = predict(predictor, train)
    bias = convention(predict(predictor, own), own.points, markup)
    offsets = convention(points, train.points, markup) - bias  # (K, 2)
    pd.DataFrame(offsets.round(4), markup.points, ["x", "y"]).to_csv(OFFSETS, index_label="point")

    # Check them on the validation faces.
    predicted = predict(predictor, val)
    corrected = moved(predicted, offsets, markup)
    metrics = {
        "faces": len(train),
        "right": round(100 * float(offsets[:, 0].mean()), 2),
        "low": round(100 * float(offsets[:, 1].mean()), 2),
        "nme_raw": round(100 * float(nme(predicted, val.points, markup).mean()), 2),
        "nme_moved": round(100 * float(nme(corrected, val.points, markup).mean()), 2),
    }

    for name in markup.regions:
        x, y = 100 * offsets[markup.region(name)].mean(0)
        print(f"{name:16}{x:7.2f} to the right, {y:7.2f} down, % of the outer-eye distance")
    print(f"wrote {Path(OFFSETS).name}")
    print(f"NME of the validation faces: {metrics['nme_raw']} -> {metrics['nme_moved']}")
    print(json.dumps(metrics))


if __name__ == "__main__":
    main(*sys.argv[1:])
