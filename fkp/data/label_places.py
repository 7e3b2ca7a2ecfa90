"""Check that labels lie on the faces that a detector finds in their images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fkp.data.label_changes import ENOUGH, changed_axes, explain
from fkp.data.label_frames import Frames, fit, usual_place
from fkp.data.label_values import Wrong
from fkp.data.table import FaceTable
from fkp.detectors import HaarCascade
from fkp.errors import FkpError
from fkp.files.images import read_image
from fkp.geometry import centre_and_side
from fkp.markup import Markup

# Images that are searched: more of them only if labels of the former lie beside faces.
FIRST, SAMPLE, LAST = 12, 48, 200

FACE = 40  # pixels: a labelled face may be shrunk to this size before the search
STRICT = 0.4  # of the tolerances, for single rows
SIDES = (240, 640, 1280)  # pixels: longest sides to which an image is resized before the search


class Search:
    """Find faces in images, each once, and no more finely than the labelled face needs."""

    def __init__(self) -> None:
        self.detectors: dict[tuple[int, bool], HaarCascade] = {}
        self.found: dict[int, np.ndarray] = {}

    def __call__(
        self, table: FaceTable, frames: Frames, faces: Sequence[int]
    ) -> dict[int, np.ndarray]:
        """Return face -> boxes (n, 4) in its image, IMAGE pixels; n is 0 for unreadable images."""
        for i in faces:
            if i not in self.found:
                extent = float(frames.extents[i])
                self.found[i] = self._boxes(table.paths[i], frames.centres[i], extent)
        return {i: self.found[i] for i in faces}

    def _boxes(self, path: Path, centre: np.ndarray, extent: float) -> np.ndarray:
        """Search one image, and if nothing is found there, the surroundings of its label."""
        try:
            image = read_image(path, gray=True)
        except FkpError:
            return np.zeros((0, 4), np.float32)

        needed = max(image.shape[:2]) * FACE / max(extent, 1.0)
        longest = next((side for side in SIDES if needed <= side), SIDES[-1])
        boxes = self._detector(longest)(image)[0]

        # The search may have missed the labelled face: look for it alone.
        x, y = centre
        left, top = np.clip(np.array([x, y]) - 1.2 * extent, 0, None).astype(int)
        right, bottom = (np.array([x, y]) + 1.2 * extent).astype(int) + 1
        part = image[top:bottom, left:right]
        too_small = extent < 8 or min(part.shape[:2]) < 16
        if too_small or part.shape == image.shape or _is_near(boxes, centre):
            return boxes
        factor = max(1.0, 3 * FACE / max(part.shape))
        part = cv2.resize(part, None, fx=factor, fy=factor)
        own = self._detector(SIDES[0], finer=True)(part)[0] / factor + np.array([left, top] * 2)
        return np.concatenate([boxes, own])

    def _detector(self, longest: int, finer: bool = False) -> HaarCascade:
        """Return the detector for images of this longest side; it is made once."""
        key = longest, finer
        if key not in self.detectors:
            self.detectors[key] = HaarCascade(
                scale_factor=1.1 if finer else 1.2,
                second="haarcascade_frontalface_alt2.xml" if finer else None,
                smallest=HaarCascade.PIXELS / longest,
                longest=longest,
            )
        return self.detectors[key]


def _is_near(boxes: np.ndarray, centre: np.ndarray) -> bool:
    """Whether one of the boxes (n, 4) lies around a centre (2,)."""
    x, y, side = centre_and_side(boxes)
    return bool((np.hypot(x - centre[0], y - centre[1]) < 0.4 * side).any())


@dataclass
class Places:
    """Say how the labels of some faces lie relative to what the detector finds.

    Args:
        wrong: kinds of wrong labels, with their faces.
        beside: faces whose label lies on no found face, for no known reason.
        seen: faces in whose image a face was found.
    """

    wrong: list[Wrong]
    beside: list[int]
    seen: list[int]


def sample(table: FaceTable, sizes: np.ndarray, markup: Markup) -> list[Wrong]:
    """Compare labels with the table's own boxes, and with faces found in a sample of the images.

    The sample has twelve evenly spaced images and those with unusual labels; it grows if a label
    lies beside a face.

    Args:
        table: F faces.
        sizes: (F, 2) width and height of each image, pixels.
        markup: the meaning of the points.
    """
    if not len(table):
        return []
    search, frames = Search(), Frames.of(table.points, sizes)

    # The table's own boxes.
    usable = np.isfinite(table.boxes).all(1) & np.isfinite(frames.centres).all(1)
    given = {i: table.boxes[i : i + 1] for i in np.flatnonzero(usable).tolist()}
    if wrong := judge(markup, frames, given).wrong:
        return wrong

    # A few images.
    first = list(dict.fromkeys([*spaced(len(table), FIRST), *_unusual(frames)]))
    boxes = search(table, frames, first)
    places = judge(markup, frames, boxes)

    # More of them in doubt; and even more if that could show that labels were changed alike.
    if places.wrong or places.beside or len(places.seen) < FIRST / 2:
        boxes |= search(table, frames, spaced(len(table), SAMPLE))
        places = judge(markup, frames, boxes)
    if not places.wrong and len(places.beside) >= ENOUGH - 1:
        boxes |= search(table, frames, spaced(len(table), LAST))
        places = judge(markup, frames, boxes)
    return [*places.wrong, *beside_the_face(places), *upper_left(frames, places)]


def spaced(total: int, count: int) -> list[int]:
    """Return at most `count` evenly spaced numbers from 0 to total - 1."""
    return list(dict.fromkeys(np.linspace(0, total - 1, count).astype(int).tolist()))


def _unusual(frames: Frames, most: int = 16, deviations: float = 6.0) -> list[int]:
    """Return the faces of unusual place or size in the image, the most unusual first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        size = np.log(np.maximum(frames.extents, 1e-9) / np.sqrt(frames.sizes.prod(1)))
        place = np.column_stack([frames.centres / frames.sizes, size])  # (F, 3)
        distance = np.abs(place - np.nanmedian(place, 0))
        scale = np.maximum(1.48 * np.nanmedian(distance, 0), (0.03, 0.03, 0.1))
        score = np.nan_to_num((distance / scale).max(1))
    order = np.argsort(-score)[:most]
    return [int(i) for i in order if score[i] > deviations]


def judge(
    markup: Markup, frames: Frames, boxes: dict[int, np.ndarray], alone: bool = False
) -> Places:
    """Compare labels with the faces that were found in their images.

    Args:
        markup: the meaning of the points.
        frames: of all faces.
        boxes: face -> boxes (n, 4) found in its image.
        alone: report a single row that a change explains closely; else some rows must agree.
    """
    seen = [i for i, found in boxes.items() if len(found) and np.isfinite(frames.centres[i]).all()]
    if not seen:
        return Places([], [], [])
    some, theirs = frames.select(seen), [boxes[i] for i in seen]
    usual = usual_place(markup, some, theirs)
    as_is = fit(some, theirs, usual)

    # All labels lie near the faces, but with other axes.
    if len(seen) >= FIRST and (wrong := changed_axes(some, theirs, as_is, seen, usual)):
        return Places(wrong, [], seen)

    # Explain labels beside the faces, one kind of change after the other.
    wrong, left = [], [i for i, hit in zip(seen, as_is.hits(), strict=True) if not hit]
    for strict in (1.0, *([STRICT] if alone else [])):
        while left and (found := explain(frames, boxes, left, usual, strict)):
            found.what += f" (so far as faces were found: in {len(seen)} of {len(boxes)} images)"
            wrong.append(found)
            left = [i for i in left if i not in found.cases]
    return Places(wrong, left, seen)


def beside_the_face(places: Places) -> list[Wrong]:
    """Report labels that lie on no found face: an error if most do, else a warning."""
    if not places.beside:
        return []
    most = len(places.seen) >= FIRST / 2 and len(places.beside) > 0.5 * len(places.seen)
    what = "the detector finds faces in these images, but not where the labels are"
    fix = "check that the labels belong to these files, in pixels of these images"
    cases = dict.fromkeys(places.beside, "")
    return [Wrong("beside the face", what, fix, cases, "error" if most else "warning")]


def upper_left(frames: Frames, places: Places) -> list[Wrong]:
    """Warn of labels that may be percent, if no face was found to compare them with."""
    high = frames.centres + frames.spans / 2
    if places.seen or len(high) < FIRST:
        return []
    if not (np.nanmax(high) <= 101 and np.median(frames.sizes.min(1)) > 200):
        return []
    what = (
        "no coordinate is above 100, in images of more than 200 pixels, and the detector finds no "
        "face in them"
    )
    fix = "if they are percent of the image, convert them to pixels"
    return [Wrong("percent?", what, fix, {}, "warning")]
