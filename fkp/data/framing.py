"""Measure where the face box lies around the points of a markup that does not say so (`box:`).

Networks are trained on crops around a box that is derived from the labelled points; prediction
starts from a detector's box. So, in the median over faces, the derived box must be the detector's.
The result is the markup's `frame`: the points of the median face, in the face box.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fkp.console import track
from fkp.data.image_cache import face_boxes
from fkp.data.shapes import CLEARLY, mean_shape, normalising_pair
from fkp.data.table import FaceTable, evenly_spaced
from fkp.detectors import HaarCascade
from fkp.errors import FkpError
from fkp.files.images import read_image
from fkp.geometry import centre_and_side, face_box, placed, reframed, square
from fkp.markup import Markup

# Faces in which the detector searches for boxes, and the number of found ones that suffices.
SAMPLE, ENOUGH = 300, 150

# With fewer found faces than this number, or this fraction of those searched, nothing is measured.
FEW, RARE = 5, 0.2

# Largest distance, in sides of the box, at which a detected box is taken for that of a face: from
# the mean of the points, and, once the frame is measured, from the box it predicts.
NEAR = 0.8
PLACED = 0.35

# A normalising pair is level if it is at most so many degrees off the horizontal in the mean face.
LEVEL = 20.0

# Points lie on one line if their extent is at most this fraction of the mean face's size.
FLAT = 0.02

# If the median face seems to be rolled by more degrees, its points do not determine the roll.
ROLLED = 25.0

# Scatter of detectors' boxes (benchmarks/accuracy/boxes.py): standard deviation of the centre, in
# sides of the box, and of the logarithm of the side.
SHIFT, ZOOM = 0.04, 0.08

# Side of the box if nothing can be measured, in units of the points' longer extent.
EXTENT = 1.5

log = logging.getLogger(__name__)


class Boxes(NamedTuple):
    """Face boxes to measure a frame on.

    Args:
        faces: F faces.
        boxes: (F, 4), their boxes, IMAGE pixels.
        origin: where the boxes come from, for a message.
        share: median side of the boxes as a fraction of the image's shorter side; None if the
            points of this markup always give a box.
    """

    faces: FaceTable
    boxes: np.ndarray
    origin: str
    share: float | None = None


def measured(faces: FaceTable, markup: Markup) -> Markup:
    """Complete a markup by what training measures: its normalising pair and its frame.

    The frame is measured on the table's own boxes; without them, on those of the default detector;
    if that finds too few faces, on the extent of the points. A declared `box:` is kept, unless the
    normalising pair is not level in an upright face: then the roll of a face must come from a
    frame, which is measured on the declared boxes.

    Args:
        faces: the training faces.
        markup: as declared.
    """
    if markup.frame is not None or not len(faces):
        return markup

    shape = mean_shape(faces.points)
    if not markup.pair and len(markup.points) > 1:
        markup = replace(markup, pair=normalising_pair(shape, markup))
        message = "markup %s has no pair: errors are in units of the distance %s to %s"
        log.info(message, markup.name, *markup.pair)
    if markup.box is not None and _level(shape, markup):
        return markup

    found = _boxes(faces, shape, markup)
    log.info("markup %s: the face box is measured on %s", markup.name, found.origin)
    measured_frame = frame(found.faces.points, found.boxes, markup)
    if found.share:
        measured_frame["share"] = found.share
    return replace(markup, frame=measured_frame)


def frame(points: np.ndarray, boxes: np.ndarray, markup: Markup) -> dict[str, Any]:
    """Measure the markup's `frame`: the median face in its box, free of error in the median.

    Args:
        points: (F, K, 2), IMAGE pixels; NaN where a point is not labelled.
        boxes: (F, 4), IMAGE pixels.
        markup: the meaning of the points.
    """
    x, y, side = centre_and_side(boxes)
    centre = np.stack([x, y], -1)  # (F, 2)
    side = np.where(side > 0, side, np.nan)  # points on one line may give no box

    # The median face, in sides of the box from its centre.
    in_box = (points - centre[:, None]) / side[:, None, None]  # (F, K, 2)
    shape = np.stack([_median(point) for point in in_box.swapaxes(0, 1)])  # (K, 2)

    # Size: rotated faces cancel out in the median face, so it is smaller than the median size.
    _, found_side, rolls, _ = placed(points, replace(markup, frame=_frame(shape, roll=True)))
    roll = bool(np.nanmedian(np.abs(rolls)) < ROLLED)
    factor, middle = np.nanmedian(found_side / side), np.nanmean(shape, 0)
    shape = middle + (shape - middle) * (factor if factor > 0 else 1.0)

    # Place: remove the median error that remains, with size and roll taken from the points.
    found_centre, found_side, _, reach = placed(points, replace(markup, frame=_frame(shape, roll)))
    error = (centre - found_centre) / side[:, None]  # (F, 2)

    # Trust: how much of a refinement step's move and zoom to take.
    found_side = np.where(found_side > 0, found_side, np.nan)
    zoom = np.log(found_side / side) if reach.any() else np.zeros(len(side))
    trust = [_trust(error, SHIFT), _trust(zoom[:, None], ZOOM)]
    return _frame(shape - np.nanmedian(error, 0), roll) | {"trust": trust}


def _trust(error: np.ndarray, scatter: float) -> float:
    """Return the fraction of a step from a detector's box to the frame's box that is to be taken.

    It is 1 where the frame's boxes scatter no more than the detector's.

    Args:
        error: (F, D), of the frame's boxes.
        scatter: standard deviation of the detector's boxes, in the same units.
    """
    low, high = np.nanpercentile(error, [25, 75], axis=0)
    std = float(np.sqrt(np.mean(((high - low) / 1.349) ** 2)))  # of a normal distribution
    return round(min(1.0, (scatter / max(std, 1e-9)) ** 2), 4)


def boxed(faces: FaceTable, markup: Markup) -> FaceTable:
    """Return a table in which every face has a box, given or derived from its points.

    Points that do not determine a box, such as one or two points, take the detector's, or else one
    whose side is the measured fraction of the image. Only markups with a measured `frame` need it.
    """
    lacking = np.flatnonzero(~np.isfinite(face_boxes(faces, markup)).all(1))
    if markup.frame is None or not len(lacking):
        return faces

    boxes, guessed = faces.boxes.copy(), 0
    for i, detected, size in _detections(faces, lacking):
        box = _nearest_box(faces.points[i], detected, markup)
        if box is None:
            box = _guessed_box(faces.points[i], size, markup)
            guessed += 1
        boxes[i] = box

    if guessed:
        log.warning(
            "markup %s: its points do not determine the size of a face, and the detector found "
            "none on %d of %d faces: their box is %.0f %% of the image; to be exact, give "
            "box_left … box_bottom",
            *(markup.name, guessed, len(faces), 100 * markup.frame["share"]),
        )
    filled = faces.select(slice(None))
    filled.boxes = boxes
    return filled


def _nearest_box(points: np.ndarray, detected: np.ndarray, markup: Markup) -> np.ndarray | None:
    """Return the detected box (4,) that lies where the points (K, 2) want it; None if none does."""
    if not len(detected):
        return None
    x, y, side = centre_and_side(detected)
    wanted = _wanted_centres(points, side, markup)
    distance = np.hypot(x - wanted[:, 0], y - wanted[:, 1]) / side
    return detected[distance.argmin()] if (distance < PLACED).any() else None


def _guessed_box(points: np.ndarray, size: tuple[int, int], markup: Markup) -> np.ndarray:
    """Return a box (4,) around points (K, 2): its side is the measured fraction of the image."""
    assert markup.frame is not None
    side = np.array([markup.frame["share"] * min(size)])
    ((x, y),) = _wanted_centres(points, side, markup)
    boxes, _ = reframed(points[None], square(x, y, side), np.zeros(1), markup)
    return boxes[0]


def _wanted_centres(points: np.ndarray, sides: np.ndarray, markup: Markup) -> np.ndarray:
    """Return the centres (n, 2) of upright boxes of these sides (n,) around points (K, 2)."""
    faces = np.repeat(points[None], len(sides), 0)
    centres, *_ = placed(faces, markup, sides, np.zeros(len(sides)))
    return centres


def _level(shape: np.ndarray, markup: Markup) -> bool:
    """Whether the mean face (K, 2) has an area, and its normalising pair is horizontal."""
    across, down = shape[markup.eyes[1]] - shape[markup.eyes[0]]
    apart = np.hypot(across, down) > CLEARLY
    level = abs(np.rad2deg(np.arctan2(down, across))) <= LEVEL
    return bool(apart and level and _has_area(shape))


def _has_area(shape: np.ndarray) -> bool:
    """Whether the mean face (K, 2) has an area."""
    return bool((np.ptp(shape, axis=0) > FLAT).all())


def _boxes(faces: FaceTable, shape: np.ndarray, markup: Markup) -> Boxes:
    """Choose boxes to measure the frame on: declared, the table's own, detected, or by extent."""
    if markup.box is not None and _has_area(shape):
        boxes = np.array([face_box(points, markup) for points in faces.points])
        return Boxes(faces, boxes, "its box: constants")

    own = np.isfinite(faces.boxes).all(1)
    if own.sum() >= max(FEW, RARE * len(faces)):
        origin = f"the table's boxes of {own.sum()} training faces"
        return Boxes(faces.select(own), faces.boxes[own], origin)

    return _detected(faces, markup) or _by_extent(faces)


def _detected(faces: FaceTable, markup: Markup) -> Boxes | None:
    """Detect the boxes of a sample of faces; None, with a warning, if too few are found."""
    chosen, boxes, shares, searched = [], [], [], 0
    sample = evenly_spaced(len(faces), SAMPLE)

    for i, detected, size in _detections(faces, sample):
        searched += 1
        x, y, side = centre_and_side(detected)
        middle = np.nanmean(faces.points[i], 0)
        distance = np.hypot(x - middle[0], y - middle[1]) / side
        if len(detected) and distance.min() < NEAR:
            best = int(distance.argmin())
            chosen.append(i)
            boxes.append(detected[best])
            shares.append(float(side[best]) / min(size))
        if len(chosen) == ENOUGH:
            break

    if len(chosen) >= max(FEW, RARE * searched):
        origin = f"the detector's boxes, found for {len(chosen)} of {searched} training faces"
        share = float(np.median(shares))
        return Boxes(faces.select(np.array(chosen)), np.array(boxes), origin, share)

    log.warning(
        "markup %s: the table has no boxes, and the detector found %d of the %d training faces "
        "searched, too few to measure the face box; it is now the points' extent x %s, so "
        "predictions need boxes like that. Give box_left, box_top, box_right and box_bottom in "
        "the table, or box: in the markup",
        *(markup.name, len(chosen), searched, EXTENT),
    )
    return None


def _by_extent(faces: FaceTable) -> Boxes:
    """Draw boxes around the points, by their extent."""
    extent = np.nanmax(faces.points, 1) - np.nanmin(faces.points, 1)
    side = EXTENT * extent.max(1)
    x, y = np.nanmean(faces.points, 1).T
    boxes = square(x, y, np.where(side > 0, side, 1.0))
    return Boxes(faces, boxes, "the points' extent", 1.0)


def _detections(
    faces: FaceTable, indices: np.ndarray
) -> Iterator[tuple[int, np.ndarray, tuple[int, int]]]:
    """Yield for each readable image its face's index, detected boxes (n, 4), height and width."""
    detector = HaarCascade()
    for i in track(indices.tolist(), f"detecting {len(indices)} faces", len(indices)):
        try:
            image = read_image(faces.paths[i], gray=True)
        except FkpError:
            continue  # decoding reports it
        yield i, detector(image)[0].astype(float), (image.shape[0], image.shape[1])


def _median(places: np.ndarray) -> np.ndarray:
    """Return the median (2,) of places (F, 2); NaN if none is labelled."""
    return np.nanmedian(places, 0) if np.isfinite(places).any() else np.full(2, np.nan)


def _frame(shape: np.ndarray, roll: bool, share: float = 1.0) -> dict[str, Any]:
    """Return a frame as plain values, as a markup stores it."""
    points = [
        None if np.isnan(point).any() else [round(float(value), 4) for value in point]
        for point in shape
    ]
    return {"points": points, "roll": roll, "share": share}
