"""Scoring a predictor on labelled faces: on the label's own box, and with the detector in the loop."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from fkp.console import track
from fkp.data.framing import boxed
from fkp.data.image_cache import face_boxes
from fkp.data.table import FaceTable, Fault, Source
from fkp.errors import FkpError
from fkp.face import Face
from fkp.files.images import read_image, to_gray
from fkp.geometry import centre_and_side, face_box, overlap
from fkp.inference.predictor import Predictor
from fkp.markup import Markup
from fkp.metrics import point_errors, summary

SAME_FACE = 0.3  # intersection over union from which a detected box is taken for the labelled face
Figures = dict[str, float]


def evaluate(predictor: Predictor, source: Source, part: str) -> tuple[dict[str, Figures], int]:
    """Score every face of a part.

    Args:
        predictor: what is scored, with its detector.
        source: of the faces, and of those in training, whose mean face is the baseline.
        part: `test` or `val`.

    Returns:
        row -> figures in percent, a mean per region among them:
        `label_box`: the crop is drawn round the label's face box;
        `detector`: round the detector's, and again round the points found, with the counts `missed` and
            `false_boxes`; a missed face is a failure;
        `as_trained`: the crop of training without its draws, the whole picture for the published system;
        `mean_shape`: the mean training face put into the label's face box;
        and the number of faces.

    Raises:
        FkpError: other points than the model's, no such part, or bad rows, unless they are to be skipped.
    """
    markup = predictor.markup
    if source.markup.points != markup.points:
        ours, theirs = (f"{m.name} ({len(m.points)} points)" for m in (markup, source.markup))
        raise FkpError(f"the model finds the points of {ours}; the data have {theirs}")
    parts = source.read().split(source.protocol)
    if part not in parts:
        raise FkpError(f"split={part}: no such split; there is {', '.join(parts)}")
    faces, mean_shape = boxed(parts[part], markup), mean_in_box(parts["train"], markup)
    faults, scored = [], []
    points: dict[str, list[np.ndarray]] = defaultdict(list)
    missed = false_boxes = 0
    boxes = face_boxes(faces, markup)
    for i in track(range(len(faces)), f"scoring {len(faces)} faces", len(faces)):
        label, box = faces.points[i], boxes[i]
        try:
            image = read_image(faces.paths[i], predictor.gray)
        except FkpError as error:
            faults.append(Fault(faces.rows[i], str(error)))
            continue
        scored.append(i)
        (own,), found = predictor(image, boxes=box[None]), predictor(image)
        face = _nearest(found, box)
        missed += face is None
        false_boxes += sum(overlap(other.box, box) < SAME_FACE for other in found)
        x, y, side = centre_and_side(box)
        points["label_box"].append(own.points)
        points["detector"].append(np.full_like(label, np.inf) if face is None else face.points)
        points["as_trained"].append(predictor.predict(image, box[None], label[None])[0][0])
        points["mean_shape"].append(mean_shape * side + (x, y))
    source.answer(faults, len(scored))
    labels, sides = faces.points[scored], centre_and_side(boxes[scored])[2]
    figures = {
        row: _figures(np.array(found, float), labels, markup, sides)
        for row, found in points.items()
    }
    figures["detector"] |= {"missed": missed, "false_boxes": false_boxes}
    return figures, len(scored)


def mean_in_box(faces: FaceTable, markup: Markup) -> np.ndarray:
    """(K, 2): the mean face, from the centre of its face box, in box sides."""
    x, y, side = (part[:, None] for part in centre_and_side(face_boxes(faces, markup)))
    if markup.frame is not None and not np.isfinite(side).any():  # a single point tells no box
        return markup.median_face
    return np.nanmean((faces.points - np.stack([x, y], -1)) / side[..., None], axis=0)


def baseline(train: FaceTable, test: FaceTable, markup: Markup) -> float:
    """NME, percent, of the mean training face put into the label's face box: what a network must beat."""
    x, y, side = centre_and_side(face_boxes(test, markup))
    points = mean_in_box(train, markup) * side[:, None, None] + np.stack([x, y], -1)[:, None]
    return summary(np.nanmean(point_errors(points, test.points, markup, side), 1))["nme"]


def example_crops(predictor: Predictor, source: Source | None, count: int) -> np.ndarray:
    """(N, h, w) or (N, h, w, 3) uint8: what the network sees of at most `count` faces of a source's validation part, or
    of drawn ones."""
    if source is None:
        from fkp import painter

        drawn = [painter.paint(0, i) for i in range(count)]
        pictures = [
            (to_gray(image) if predictor.gray else image, face_box(label)) for image, label in drawn
        ]
    else:
        faces = source.read().split(source.protocol)["val"]
        faces = faces.select(np.unique(np.linspace(0, len(faces) - 1, count).astype(int)))
        faces = boxed(faces, predictor.markup)
        boxes = face_boxes(faces, predictor.markup)
        pictures = [
            (read_image(path, predictor.gray), box)
            for path, box in zip(faces.paths, boxes, strict=True)
        ]
    return np.concatenate([predictor.crop(image, box[None])[0] for image, box in pictures])


def _nearest(found: list[Face], box: np.ndarray) -> Face | None:
    same = [face for face in found if overlap(face.box, box) >= SAME_FACE]
    return max(same, key=lambda face: overlap(face.box, box), default=None)


def _figures(points: np.ndarray, labels: np.ndarray, markup: Markup, sides: np.ndarray) -> Figures:
    errors = point_errors(points, labels, markup, sides)
    found = np.isfinite(points).all((1, 2))
    figures = summary(np.nanmean(errors, axis=1))
    for name in markup.regions:
        figures[f"nme_{name}"] = 100 * float(np.nanmean(errors[found][:, markup.region(name)]))
    return figures
