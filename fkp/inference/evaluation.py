"""Evaluate a predictor on labelled faces: in the label's own box, and with the detector."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from fkp.console import track
from fkp.data.framing import boxed
from fkp.data.image_cache import face_boxes
from fkp.data.table import FaceTable, Fault, Source, evenly_spaced, label_sums
from fkp.errors import FkpError
from fkp.face import Face
from fkp.files.images import read_image, to_gray
from fkp.geometry import centre_and_side, face_box, overlap
from fkp.inference.predictor import Predictor
from fkp.markup import Markup
from fkp.metrics import point_errors, summary

# Intersection over union from which a detected box counts as the labelled face.
SAME_FACE = 0.3

Metrics = dict[str, float]

log = logging.getLogger(__name__)


def evaluate(predictor: Predictor, source: Source, split: str) -> tuple[dict[str, Metrics], int]:
    """Evaluate every face of a split.

    Args:
        predictor: to evaluate, with its detector.
        source: of the faces, and of the training faces whose mean shape is the baseline.
        split: `test` or `val`.

    Returns:
        Row -> metrics in percent, with a mean for each region, and the number of faces. The rows:
        `label_box`: the crop is taken around the label's face box;
        `detector`: around the detector's box; with the counts `missed` and `false_boxes`; a missed
            face counts as a failure;
        `as_trained`: the crop of training without augmentation, which is the full image for the
            published system;
        `mean_shape`: the mean training face, placed in the label's face box.

    Raises:
        FkpError: the source has other points than the model, the split does not exist, or rows are
            unusable and not to be skipped.
    """
    markup = predictor.markup
    order = _order(markup, source.markup)
    table = source.read()
    if order != list(range(len(order))):
        table.points = table.points[:, order]
    splits = source.split(table)
    if split not in splits:
        raise FkpError(f"split={split}: no such split; choose {', '.join(splits)}")
    if not len(splits[split]):
        raise FkpError(f"data.fold={source.fold}: no face is left for split={split}", key="split")
    faces, mean_shape = boxed(splits[split], markup), mean_in_box(splits["train"], markup)
    boxes = face_boxes(faces, markup)

    # Predict each face in all ways.
    faults, scored, predictions = [], [], _Predictions()
    for i in track(range(len(faces)), f"evaluating {len(faces)} faces", len(faces)):
        try:
            image = read_image(faces.paths[i], predictor.gray)
        except FkpError as error:
            faults.append(Fault(faces.rows[i], str(error)))
            continue
        scored.append(i)
        predictions.add(predictor, image, faces.points[i], boxes[i], mean_shape)
    source.answer(faults, len(scored))

    # Compare the predictions with the labels.
    labels, sides = faces.points[scored], centre_and_side(boxes[scored])[2]
    metrics = {
        row: _metrics(np.array(points, float), labels, markup, sides)
        for row, points in predictions.points.items()
    }
    counts = {"missed": predictions.missed, "false_boxes": predictions.false_boxes}
    metrics["detector"] |= counts
    _warn_of_training(predictor, labels, metrics)
    return metrics, len(scored)


def mean_in_box(faces: FaceTable, markup: Markup) -> np.ndarray:
    """Compute the mean face (K, 2), from the centre of its face box, in sides of the box."""
    x, y, side = (column[:, None] for column in centre_and_side(face_boxes(faces, markup)))
    # A single point does not define a box.
    if markup.frame is not None and not np.isfinite(side).any():
        return markup.median_face
    centres = np.stack([x, y], -1)  # (F, 1, 2)
    return np.nanmean((faces.points - centres) / side[..., None], axis=0)


def baseline(train: FaceTable, test: FaceTable, markup: Markup) -> float:
    """Compute the NME, in percent, of the mean training face placed in the label's face box.

    A network must beat it.
    """
    x, y, side = centre_and_side(face_boxes(test, markup))
    centres = np.stack([x, y], -1)[:, None]  # (F, 1, 2)
    points = mean_in_box(train, markup) * side[:, None, None] + centres  # (F, K, 2)
    errors = point_errors(points, test.points, markup, side)
    return summary(np.nanmean(errors, 1))["nme"]


def example_crops(predictor: Predictor, source: Source | None, count: int) -> np.ndarray:
    """Return crops as the network sees them.

    Args:
        predictor: whose crops.
        source: its validation split is used; None for synthetic faces.
        count: number of faces, at most.

    Returns:
        (N, h, w) or (N, h, w, 3) uint8.
    """
    if source is None:
        images = _synthetic_faces(predictor, count)
    else:
        images = _validation_faces(predictor, source, count)
    return np.concatenate([predictor.crop(image, box[None])[0] for image, box in images])


@dataclass
class _Predictions:
    """Predictions of the faces so far.

    Args:
        points: row of the result -> (K, 2) for each face; infinite where the face was missed.
        missed: number of faces that the detector missed.
        false_boxes: number of boxes of the detector that do not overlap the labelled face.
    """

    points: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    missed: int = 0
    false_boxes: int = 0

    def add(
        self,
        predictor: Predictor,
        image: np.ndarray,
        label: np.ndarray,
        box: np.ndarray,
        mean_shape: np.ndarray,
    ) -> None:
        """Predict one face; label (K, 2), box (4,) and mean_shape (K, 2) in sides of the box."""
        # In the label's box.
        (own,) = predictor(image, boxes=box[None])
        self.points["label_box"].append(own.points)

        # With the detector.
        found = predictor(image)
        face = _nearest(found, box)
        self.missed += face is None
        self.false_boxes += sum(overlap(other.box, box) < SAME_FACE for other in found)
        missing = np.full_like(label, np.inf)
        self.points["detector"].append(missing if face is None else face.points)

        # As in training, and without looking at the image.
        self.points["as_trained"].append(predictor.predict(image, box[None], label[None])[0][0])
        x, y, side = centre_and_side(box)
        self.points["mean_shape"].append(mean_shape * side + (x, y))


def _warn_of_training(
    predictor: Predictor, labels: np.ndarray, metrics: dict[str, Metrics]
) -> None:
    """Log and count the faces (F, K, 2) whose labels the training of the model has seen."""
    known = set(predictor.engine.recipe.trained_on)
    seen = sum(one in known for one in label_sums(labels))
    if seen:
        metrics["label_box"]["trained_on"] = metrics["detector"]["trained_on"] = seen
        log.warning(
            "the model was trained on %d of these %d faces, so the metrics are too good; "
            "the cross-validation of the training, cv/nme in its metrics.json, is honest",
            *(seen, len(labels)),
        )


def _order(model: Markup, data: Markup) -> list[int]:
    """Return, for each point of the model, its place in the data, whose points have any order.

    Raises:
        FkpError: the data have other points.
    """
    if sorted(data.points) != sorted(model.points):
        ours, theirs = (f"{m.name} ({len(m.points)} points)" for m in (model, data))
        raise FkpError(
            f"the model predicts the points of {ours}, but the data have {theirs}; "
            "choose another ckpt or other data"
        )
    return [data.points.index(point) for point in model.points]


def _synthetic_faces(predictor: Predictor, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return images and face boxes (4,) of synthetic faces."""
    from fkp import painter

    painted = [painter.paint(0, i) for i in range(count)]
    return [
        (to_gray(image) if predictor.gray else image, face_box(label)) for image, label in painted
    ]


def _validation_faces(
    predictor: Predictor, source: Source, count: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return images and face boxes (4,) of evenly spaced faces of the validation split."""
    faces = source.split(source.read())["val"]
    faces = faces.select(evenly_spaced(len(faces), count))
    faces = boxed(faces, predictor.markup)
    boxes = face_boxes(faces, predictor.markup)
    return [
        (read_image(path, predictor.gray), box)
        for path, box in zip(faces.paths, boxes, strict=True)
    ]


def _nearest(found: list[Face], box: np.ndarray) -> Face | None:
    """Return the face whose box overlaps the labelled box most; None if none is the same face."""
    same = [face for face in found if overlap(face.box, box) >= SAME_FACE]
    return max(same, key=lambda face: overlap(face.box, box), default=None)


def _metrics(points: np.ndarray, labels: np.ndarray, markup: Markup, sides: np.ndarray) -> Metrics:
    """Compute the metrics, in percent, of points (F, K, 2).

    The means of regions leave out missed faces, whose points are infinite.
    """
    errors = point_errors(points, labels, markup, sides)  # (F, K)
    found = np.isfinite(points).all((1, 2))
    metrics = summary(np.nanmean(errors, axis=1))
    for name in markup.regions:
        metrics[f"nme_{name}"] = 100 * float(np.nanmean(errors[found][:, markup.region(name)]))
    return metrics
