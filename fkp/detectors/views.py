"""Search an image of any size: as a whole, shrunk, and if need be in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np

from fkp.errors import FkpError
from fkp.geometry import overlaps

# The columns of a row that a search returns; between them, x y of any number of points.
LEFT, TOP, WIDTH, HEIGHT, SCORE = 0, 1, 2, 3, -1

# Two boxes of a larger intersection over union are the same face.
SAME = 0.3

# Fraction of a box that may lie in a better one, if several scales have been searched.
NESTED = 0.5

# Overlap of neighbouring tiles, in tile sides.
OVERLAP = 0.25

# A box that is nearer than this to an inner edge of its tile, in box sides, is cut by the edge.
BORDER = 0.05

# A view may be longer than `longest` by this factor if no other view of the scale is needed then.
STRETCH = 2.5

# Ratio of two scales that are searched one after the other: the faces that are too small for the
# coarser scale fit into the overlap of the finer one's tiles.
MAX_STEP = 4

# The default of `smallest`: pixels, and fraction of the longer side.
SMALLEST = (20, 0.02)

# The longer side counts as at most so many times the shorter one.
LONG = 2


def checked_smallest(smallest: float | None) -> float | None:
    """Return `smallest` of a detector.

    Raises:
        FkpError: it is neither None nor a number above 0.
    """
    if smallest is not None and not 0 < smallest < np.inf:
        raise FkpError(
            f"detector.smallest={smallest}: must be above 0: below 1, a fraction of the longer "
            "side of the image; from 1, pixels; null for the default",
            key="detector.smallest",
        )
    return smallest


def smallest_face(smallest: float | None, shape: tuple[int, ...]) -> float:
    """Return the side of the smallest face box that a search must find, IMAGE pixels.

    Args:
        smallest: below 1, a fraction of the longer side of the image; from 1, pixels; None for the
            larger of 20 pixels and 2 % of the longer side.
        shape: of the image. The longer side counts as at most twice the shorter one: in a panorama
            or a scroll of several photos, a face is no larger than in one of them.

    >>> smallest_face(None, (480, 640)), smallest_face(None, (3000, 4000))
    (20, 80.0)
    >>> smallest_face(0.1, (480, 640)), smallest_face(0.1, (400, 9000)), smallest_face(24, (9, 9))
    (64.0, 80.0, 24)
    """
    height, width = shape[:2]
    longer = min(max(height, width), LONG * min(height, width))
    if smallest is None:
        pixels, fraction = SMALLEST
        return max(pixels, fraction * longer)
    return smallest * longer if smallest < 1 else smallest


def search(
    image: np.ndarray,
    smallest: float,
    pixels: float,
    longest: int,
    hits: Callable[[np.ndarray, float], np.ndarray],
) -> np.ndarray:
    """Search an image as finely as its smallest face needs, and no more finely.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        smallest: side of the smallest face to find, IMAGE pixels.
        pixels: side that a face needs to be found. Images are not enlarged: a smaller face than
            this one may be missed.
        longest: longer side of what is searched at once, pixels.
        hits: view (h, w[, 3]) and the side of the smallest face in it -> rows (N, 5 + 2 P): left,
            top, width, height, x y of P points, and a score.

    Returns:
        such rows, best first; IMAGE pixels, but measured from the edge of the image.
    """
    found = [
        view.in_image(hits(view.pixels, smallest * view.factor))
        for view in views(image, pixels / smallest, longest)
    ]
    rows = np.concatenate(found)
    rows = rows[np.argsort(-rows[:, SCORE], kind="stable")]
    if len(found) == 1:
        return rows

    # The same face may have been found in several tiles.
    left_top, size = rows[:, [LEFT, TOP]], rows[:, [WIDTH, HEIGHT]]
    boxes = np.concatenate([left_top, left_top + size], 1)
    return rows[distinct(boxes, NESTED)]


class _View(NamedTuple):
    """What is searched at once: the whole image, or a tile of it, shrunk.

    Args:
        pixels: of the view.
        factor: by which the image is shrunk.
        edges: (4,) left, top, right, bottom of the view in the shrunk image.
        inner: (4,) bool: the edges beyond which the image goes on.
    """

    pixels: np.ndarray
    factor: float
    edges: np.ndarray
    inner: np.ndarray

    def in_image(self, rows: np.ndarray) -> np.ndarray:
        """Convert rows of `search` from pixels of the view to IMAGE pixels.

        Boxes that are cut by an inner edge are dropped: another tile shows the whole face.
        """
        if not self.inner.any():
            # The whole image: its corner is the image's.
            return np.concatenate([rows[:, :SCORE] / self.factor, rows[:, SCORE:]], 1)

        # Distance of each box to the four edges, (N, 4).
        corner, (width, height) = self.edges[:2], self.edges[2:] - self.edges[:2]
        left, top = rows[:, LEFT], rows[:, TOP]
        right, bottom = left + rows[:, WIDTH], top + rows[:, HEIGHT]
        distance = np.stack([left, top, width - right, height - bottom], 1)
        side = rows[:, [WIDTH, HEIGHT]].mean(1, keepdims=True)
        cut = (self.inner & (distance < BORDER * side)).any(1)
        rows = rows[~cut]

        # Move left and top and all points, but neither width and height nor the score; rescale all
        # but the score.
        points = np.tile(corner, rows.shape[1] // 2 - 2)
        offset = np.concatenate([corner, [0, 0], points, [0]])
        factor = np.append(np.full(rows.shape[1] - 1, self.factor), 1)
        return (rows + offset) / factor


def views(image: np.ndarray, finest: float, longest: int) -> Iterator[_View]:
    """Cut an image into what is searched at once, the finest scale first.

    The coarsest scale is one view. A finer one is one view if that is not much longer than
    `longest`, else overlapping tiles of that side.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        finest: scale at which the smallest face is large enough to be found.
        longest: longer side of a view, pixels.
    """
    longer = max(image.shape[:2])
    factors = [min(1.0, finest)]
    while factors[-1] * longer > longest:
        # Networks miss faces that are far larger than those they were trained on.
        factors.append(factors[-1] / MAX_STEP)

    pixels = image
    for factor in factors:
        # Each scale is shrunk from the one before: that has fewer pixels.
        pixels = shrunk(image, factor) if factor == factors[0] else shrunk(pixels, 1 / MAX_STEP)
        height, width = pixels.shape[:2]
        # Tiles would take longer than a view that is a little larger.
        side = longest if max(height, width) > STRETCH * longest else max(height, width)
        for top in _starts(height, side):
            for left in _starts(width, side):
                right, bottom = min(left + side, width), min(top + side, height)
                tile = np.ascontiguousarray(pixels[top:bottom, left:right])
                edges = np.array([left, top, right, bottom])
                yield _View(tile, factor, edges, edges != [0, 0, width, height])


def _starts(length: int, tile: int) -> list[int]:
    """Return where overlapping tiles start that cover a length, evenly spaced."""
    count = max(1, int(np.ceil((length / tile - OVERLAP) / (1 - OVERLAP))))
    return np.linspace(0, max(0, length - tile), count).round().astype(int).tolist()


def shrunk(image: np.ndarray, factor: float) -> np.ndarray:
    """Shrink an image by a factor; it is not enlarged."""
    if factor >= 1:
        return image
    height, width = image.shape[:2]
    # At least one pixel: an image may be a single line of pixels.
    size = (max(1, round(factor * width)), max(1, round(factor * height)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def distinct(boxes: np.ndarray, nested: float = 1.0) -> list[int]:
    """Suppress boxes of the same face (non-maximum suppression).

    Args:
        boxes: (F, 4), best first.
        nested: fraction of a box that may lie in a better one.

    Returns:
        the indices of the boxes to keep: those that overlap no better one.
    """
    iou, inside = overlaps(boxes)
    kept: list[int] = []
    for i in range(len(boxes)):
        if (iou[i, kept] <= SAME).all() and (inside[i, kept] <= nested).all():
            kept.append(i)
    return kept
