"""Scoring a predictor on labelled faces: on the label's own box, and with the detector in the loop."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from fkp.geometry import centre_and_side, face_box, overlap
from fkp.markup import Markup
from fkp.metrics import point_errors, summary
from fkp.pictures import read_picture
from fkp.predictor import Face, Predictor
from fkp.progress import track
from fkp.sources.table import FaceTable

SAME_FACE = 0.3  # intersection over union from which a detected box is taken for the labelled face
Figures = dict[str, float]


def evaluate(predictor: Predictor, faces: FaceTable, mean_shape: np.ndarray) -> dict[str, Figures]:
    """Score every face.

    Args:
        predictor: what is scored, with its detector.
        faces: F labelled faces.
        mean_shape: (K, 2), the baseline, from `mean_in_box`.

    Returns:
        row -> figures in percent, a mean per region among them:
        `label_box`: the crop is drawn round the label's face box;
        `detector`: round the detector's, and again round the points found, with the counts `missed` and
            `false_boxes`; a missed face is a failure;
        `as_trained`: the crop of training without its draws, the whole picture for the published system;
        `mean_shape`: the mean training face put into the label's face box.
    """
    markup = predictor.markup
    points: dict[str, list[np.ndarray]] = defaultdict(list)
    missed = false_boxes = 0
    for path, label in track(zip(faces.paths, faces.points, strict=True), f"scoring {len(faces)} faces", len(faces)):
        image = read_picture(path, predictor.gray)
        box = face_box(label, markup)
        (own,), found = predictor(image, boxes=box[None]), predictor(image)
        face = _nearest(found, box)
        missed += face is None
        false_boxes += sum(overlap(other.box, box) < SAME_FACE for other in found)
        x, y, side = centre_and_side(box)
        points["label_box"].append(own.points)
        points["detector"].append(np.full_like(label, np.inf) if face is None else face.points)
        points["as_trained"].append(predictor.predict(image, box[None], label[None])[0][0])
        points["mean_shape"].append(mean_shape * side + (x, y))
    rows = {row: _figures(np.array(found, float), faces.points, markup) for row, found in points.items()}
    rows["detector"] |= {"missed": missed, "false_boxes": false_boxes}
    return rows


def mean_in_box(faces: FaceTable, markup: Markup) -> np.ndarray:
    """(K, 2): the mean face, from the centre of its face box, in box sides."""
    shapes = []
    for label in faces.points:
        x, y, side = centre_and_side(face_box(label, markup))
        shapes.append((label - (x, y)) / side)
    return np.nanmean(shapes, axis=0)


def _nearest(found: list[Face], box: np.ndarray) -> Face | None:
    same = [face for face in found if overlap(face.box, box) >= SAME_FACE]
    return max(same, key=lambda face: overlap(face.box, box), default=None)


def _figures(points: np.ndarray, labels: np.ndarray, markup: Markup) -> Figures:
    errors = point_errors(points, labels, markup)
    found = np.isfinite(points).all((1, 2))
    figures = summary(np.nanmean(errors, axis=1))
    for name in markup.regions:
        figures[f"nme_{name}"] = 100 * float(np.nanmean(errors[found][:, markup.region(name)]))
    return figures
