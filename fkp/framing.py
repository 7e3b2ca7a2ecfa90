"""Measuring how the face box lies round the points of a markup that does not say so (`box:`), from a training's faces.

Networks are trained on crops round the box that is drawn from the labelled points; prediction begins with the box of a
detector. So the one must be, on median, where the other is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from fkp.canvases import face_boxes
from fkp.detectors import HaarCascade
from fkp.errors import FkpError
from fkp.geometry import centre_and_side, face_box, placed, reframed, square
from fkp.markup import Markup
from fkp.pictures import read_picture
from fkp.progress import track
from fkp.shapes import CLEARLY, mean_shape, normalising_pair
from fkp.sources.table import FaceTable

SAMPLE, ENOUGH = 300, 150  # faces that are looked at for the detector's boxes, and found ones that suffice
FEW, RARE = 5, 0.2  # faces, and share of those looked at: with fewer found ones nothing is measured
NEAR = 0.8  # box sides from the middle of the points to the centre of a box that may be that of their face
PLACED = 0.35  # the same, from where the measured frame wants the box
LEVEL = 20.0  # degrees that the normalising pair may be off the horizontal in the mean face
FLAT = 0.02  # of the size of the mean face: its points lie on one line, and have no width x height
ROLLED = 25.0  # degrees: if the median face seems to be turned further, the points do not tell how far faces are turned
SHIFT, ZOOM = 0.04, 0.08  # how detectors' boxes scatter (benchmarks/boxes.py), in box sides, and of the log of the side
EXTENT = 1.5  # the side of the box without any measurement, in units of the points' longer extent

log = logging.getLogger(__name__)


def measured(faces: FaceTable, markup: Markup) -> Markup:
    """A markup with all that a training has to measure: the frame, and the normalising pair if it names none.

    The frame is measured on the table's own boxes; if it has none, on the default detector's; if that finds too few
    faces, it is the extent of the points. A declared `box:` is kept as it is, unless the normalising pair is no level
    line in an upright face: then the frame, which knows what is upright, is measured on the declared boxes.

    Args:
        faces: those of the training part.
    """
    if markup.frame is not None or not len(faces):
        return markup
    shape = mean_shape(faces.points)
    if not markup.pair and len(markup.points) > 1:
        markup = replace(markup, pair=normalising_pair(shape, markup))
        log.info("markup %s has no pair: errors are in units of the distance %s to %s", markup.name, *markup.pair)
    if markup.box is not None and _level(shape, markup):
        return markup

    own = np.isfinite(faces.boxes).all(1)
    if markup.box is not None and (np.ptp(shape, axis=0) > FLAT).all():
        boxes, share, rule = np.array([face_box(face, markup) for face in faces.points]), None, "its box: constants"
    elif own.sum() >= max(FEW, RARE * len(faces)):
        faces, boxes, share = faces.select(own), faces.boxes[own], None
        rule = f"the table's boxes of {own.sum()} training faces"
    else:
        faces, boxes, share, rule = _on_detected(faces, markup)
    log.info("markup %s: the face box round its points is measured on %s", markup.name, rule)
    return replace(markup, frame=frame(faces.points, boxes, markup) | ({"share": share} if share else {}))


def frame(points: np.ndarray, boxes: np.ndarray, markup: Markup) -> dict[str, Any]:
    """The markup's `frame`: the median face in its box, such that the box it gives has no error on median.

    Args:
        points: (F, K, 2), IMAGE pixels; NaN where a point is not labelled.
        boxes: (F, 4), IMAGE pixels.
    """
    x, y, side = centre_and_side(boxes)
    side = np.where(side > 0, side, np.nan)  # a rule may give none for points on one line
    in_box = (points - np.stack([x, y], -1)[:, None]) / side[:, None, None]
    shape = np.array([np.nanmedian(p, 0) if np.isfinite(p).any() else [np.nan] * 2 for p in in_box.swapaxes(0, 1)])

    # Size: the median face is smaller than faces are on median, as those turned away cancel out in it.
    _, found, tilts, _ = placed(points, replace(markup, frame=_plain(shape, roll=True)))
    roll = bool(np.nanmedian(np.abs(tilts)) < ROLLED)
    factor, middle = np.nanmedian(found / side), np.nanmean(shape, 0)
    shape = middle + (shape - middle) * (factor if factor > 0 else 1.0)

    # Place, with the size and tilt that will be taken from the points.
    found, said, _, reach = placed(points, replace(markup, frame=_plain(shape, roll)))
    zoom = np.log(np.where(said > 0, said, np.nan) / side) if reach.any() else np.zeros(len(side))
    off = (np.stack([x, y], -1) - found) / side[:, None]
    return _plain(shape - np.nanmedian(off, 0), roll) | {"trust": [_trust(off, SHIFT), _trust(zoom[:, None], ZOOM)]}


def _trust(off: np.ndarray, usual: float) -> float:
    """How much of a step from a detector's box to the frame's to take, if frames (F, D) are so far off boxes and boxes
    scatter by `usual` themselves: all of it, where frames scatter no more."""
    low, high = np.nanpercentile(off, [25, 75], axis=0)
    scatter = float(np.sqrt(np.mean(((high - low) / 1.349) ** 2)))  # a normal's standard deviation
    return round(min(1.0, (usual / max(scatter, 1e-9)) ** 2), 4)


def boxed(faces: FaceTable, markup: Markup) -> FaceTable:
    """A table whose faces all have boxes: where neither it nor the points tell one, as one or two points do not, the
    detector's, or else one of the measured share of the image round the points.

    Only a markup with a measured `frame` comes to that.
    """
    lacking = np.flatnonzero(~np.isfinite(face_boxes(faces, markup)).all(1))
    if markup.frame is None or not len(lacking):
        return faces
    boxes, guessed = faces.boxes.copy(), 0
    for i, found, size in _detections(faces, lacking):
        points = faces.points[i : i + 1]
        side = markup.frame["share"] * min(size)
        x, y, sides = centre_and_side(found)
        wanted = placed(np.repeat(points, len(found), 0), markup, sides, np.zeros(len(found)))[0]
        off = np.hypot(x - wanted[:, 0], y - wanted[:, 1]) / sides
        near = bool((off < PLACED).any())
        if near:
            boxes[i] = found[off.argmin()]
        else:
            centre = placed(points, markup, np.array([side]), np.zeros(1))[0]
            guess = square(centre[:, 0], centre[:, 1], np.array([side]))
            boxes[i] = reframed(points, guess, np.zeros(1), markup)[0][0]
        guessed += not near
    if guessed:
        log.warning(
            "markup %s: its points do not tell the size of a face, and the detector found none on %d of %d faces: for "
            "these the box is %.0f %% of the image; give box_left … box_bottom to be exact",
            *(markup.name, guessed, len(faces), 100 * markup.frame["share"]),
        )
    filled = faces.select(slice(None))
    filled.boxes = boxes
    return filled


def _level(shape: np.ndarray, markup: Markup) -> bool:
    """Whether the normalising pair tells in the mean face what is level, and its declared box has an area."""
    across, down = shape[markup.eyes[1]] - shape[markup.eyes[0]]
    level = np.hypot(across, down) > CLEARLY and abs(np.rad2deg(np.arctan2(down, across))) <= LEVEL
    return bool(level and (np.ptp(shape, axis=0) > FLAT).all())


def _on_detected(faces: FaceTable, markup: Markup) -> tuple[FaceTable, np.ndarray, float, str]:
    """The faces on which the frame is measured if the table has no boxes, their boxes, the median side as a share of
    the image's shorter side, and where they are from."""
    chosen, boxes, shares, seen = [], [], [], 0
    for i, found, size in _detections(faces, np.unique(np.linspace(0, len(faces) - 1, SAMPLE).astype(int))):
        seen += 1
        x, y, side = centre_and_side(found)
        off = np.hypot(*(np.nanmean(faces.points[i], 0) - np.stack([x, y], -1)).T) / side
        if len(found) and off.min() < NEAR:
            best = int(off.argmin())
            chosen.append(i)
            boxes.append(found[best])
            shares.append(float(side[best]) / min(size))
        if len(chosen) == ENOUGH:
            break
    if len(chosen) >= max(FEW, RARE * seen):
        rule = f"the detector's boxes, found for {len(chosen)} of the {seen} training faces looked at"
        return faces.select(np.array(chosen)), np.array(boxes), float(np.median(shares)), rule
    log.warning(
        "markup %s: the table has no boxes, and the detector found %d of the %d training faces looked at, too few to "
        "measure the face box; it is now the points' extent x %s, so predictions need boxes like that. Give box_left, "
        "box_top, box_right and box_bottom in the table, or box: in the markup",
        *(markup.name, len(chosen), seen, EXTENT),
    )
    side = EXTENT * (np.nanmax(faces.points, 1) - np.nanmin(faces.points, 1)).max(1)
    x, y = np.nanmean(faces.points, 1).T
    return faces, square(x, y, np.where(side > 0, side, 1.0)), 1.0, "the points' extent"


def _detections(faces: FaceTable, indices: np.ndarray) -> Iterator[tuple[int, np.ndarray, tuple[int, int]]]:
    """For each of these faces whose image can be read its index, all boxes that the detector finds in it, and the
    image's height and width."""
    detector = HaarCascade()
    for i in track(indices.tolist(), f"detecting {len(indices)} faces", len(indices)):
        try:
            image = read_picture(faces.paths[i], gray=True)
        except FkpError:  # the decoding says so
            continue
        yield i, detector(image)[0].astype(float), (image.shape[0], image.shape[1])


def _plain(shape: np.ndarray, roll: bool, share: float = 1.0) -> dict[str, Any]:
    points = [None if np.isnan(point).any() else [round(float(value), 4) for value in point] for point in shape]
    return {"points": points, "roll": roll, "share": share}
