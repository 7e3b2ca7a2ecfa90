"""Compare where labels lie in their images with the boxes that a detector finds there."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fkp.data.label_values import AT_ONCE, KNOWN
from fkp.geometry import centre_and_side
from fkp.markup import Markup

# How far a label may lie from where the detector puts it: in sides of the box, and in the logarithm
# of its size. Of youtube_faces, 300-W and LFW 99 % are within, and 95 % of UTKFace's tight crops.
OFF, LARGER = 0.3, 0.45

# In sides of the box: the points of no markup lie further from the axis of the face, in the median.
ASIDE = 0.25


@dataclass
class Frames:
    """Say where the labels of F faces lie in their images.

    Args:
        centres: (F, 2), means of the points, pixels.
        spans: (F, 2), extents of the points in x and y, pixels.
        sizes: (F, 2), width and height of the images, pixels.
    """

    centres: np.ndarray
    spans: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, sizes: np.ndarray) -> Frames:
        """Compute the frames of labels (F, K, 2) in images of sizes (F, 2)."""
        centres, spans = np.empty((len(points), 2)), np.empty((len(points), 2))
        with warnings.catch_warnings():
            # A face without a label lies nowhere.
            warnings.simplefilter("ignore", RuntimeWarning)
            for start in range(0, len(points), AT_ONCE):
                block = slice(start, start + AT_ONCE)
                centres[block] = np.nanmean(points[block], 1)
                spans[block] = np.nanmax(points[block], 1) - np.nanmin(points[block], 1)
        return cls(centres, spans, np.asarray(sizes, float))

    @property
    def extents(self) -> np.ndarray:
        """Return the diagonals of the spans, (F,)."""
        return np.hypot(*self.spans.T)

    def select(self, faces: Sequence[int]) -> Frames:
        """Select faces by their indices."""
        return Frames(self.centres[faces], self.spans[faces], self.sizes[faces])


@dataclass
class Fit:
    """Say how frames lie relative to the nearest of the boxes in their images.

    Args:
        off: (F, 2), distance from where the markup's points usually lie, in sides of the box.
        larger: (F,), logarithm of the size relative to the usual one; 0 where that is not known.
        factor: (F,), what the frame was multiplied by to lie there.
    """

    off: np.ndarray
    larger: np.ndarray
    factor: np.ndarray

    def hits(self, strict: float = 1.0) -> np.ndarray:
        """Whether frames lie on a face, (F,) bool; `strict` scales the tolerances."""
        near = np.abs(self.off).max(1) < OFF * strict
        return np.asarray(near & (np.abs(self.larger) < LARGER * strict))


def fit(
    frames: Frames, boxes: Sequence[np.ndarray], usual: np.ndarray, scaled: bool = False
) -> Fit:
    """Compare frames with the boxes (n, 4) in their images.

    Args:
        frames: of F faces.
        boxes: F arrays (n, 4), at least one box each.
        usual: (3,), where the points lie in a box: x and y from its centre, in sides of the box,
            and the logarithm of their extent in sides; NaN for a size that is not known.
        scaled: multiply each frame by the factor that brings it nearest to a box.
    """
    off, larger, factor = np.zeros((len(boxes), 2)), np.zeros(len(boxes)), np.ones(len(boxes))
    each = zip(frames.centres, frames.extents, boxes, strict=True)
    for i, (centre, extent, found) in enumerate(each):
        x, y, side = centre_and_side(found)
        target = np.stack([x, y], 1) + usual[:2] * side[:, None]  # (n, 2)

        factors = np.ones(len(found))
        if scaled:
            factors = np.maximum(target @ centre / max(centre @ centre, 1e-9), 1e-9)

        distance = (factors[:, None] * centre - target) / side[:, None]  # (n, 2)
        size = np.log(np.maximum(factors * extent, 1e-9) / side) - usual[2]
        size = np.nan_to_num(size)
        best = int((np.abs(distance).sum(1) + np.abs(size)).argmin())
        off[i], larger[i], factor[i] = distance[best], size[best], factors[best]
    return Fit(off, larger, factor)


def usual_place(markup: Markup, frames: Frames, boxes: Sequence[np.ndarray]) -> np.ndarray:
    """Return where the markup's points lie in a detector's box, (3,), as `fit` takes it.

    It is known for some markups; else it is measured: the medians over these faces.
    """
    for known in KNOWN:
        if markup.points == known.points and known.box is not None:
            up, side = known.box["up"], known.box["side"]
            return np.array([0.0, up / side, np.log(2**0.5 / side)])

    have_size = (frames.extents > 0).all()
    own = fit(frames, boxes, np.array([0.0, 0.0, 0.0 if have_size else np.nan]))
    x, y = (float(value) for value in np.median(own.off, 0))
    size = float(np.median(own.larger))

    # Points of a face are about as large as its box, and on both sides of its axis. Otherwise the
    # labels may be wrong, and are no measure.
    placed_x, placed_y = abs(x) <= ASIDE, abs(y) <= 2 * ASIDE
    if placed_x and placed_y and np.log(0.1) < size < np.log(2.5) and have_size:
        return np.array([x, y, size])
    return np.array([x if placed_x else 0.0, y if placed_y else 0.0, np.nan])
