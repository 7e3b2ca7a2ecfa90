"""Labels as a set of shapes: the mean face, and whether its mirror image agrees with the markup."""

from __future__ import annotations

import warnings

import numpy as np

from fkp.errors import FkpError
from fkp.markup import Markup

CLEARLY = 0.15  # of the face's size: turned heads move points by less, and other points of an eye lie nearer


def centred(points: np.ndarray) -> np.ndarray:
    """(F, K, 2) shapes, each from the mean of its points, in units of sqrt(w * h) of its extent; NaN stays NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a point that is labelled nowhere has no mean
        middle = np.nanmean(points, 1, keepdims=True)
        extent = np.nanmax(points, 1) - np.nanmin(points, 1)
    size = np.sqrt(np.maximum(extent[:, 0] * extent[:, 1], 1e-9))
    return (points - middle) / size[:, None, None]


def mean_shape(points: np.ndarray) -> np.ndarray:
    """(K, 2): the mean of `centred` shapes (F, K, 2)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(centred(points), 0)


def prove_flip(points: np.ndarray, markup: Markup) -> None:
    """Prove the markup's left and right against labels: mirrored and with pairs swapped, the mean face must lie nearer
    to itself than mirrored alone, and no other pairing of a point may be plainly better.

    Args:
        points: (F, K, 2) labels; NaN where a point is not labelled.

    Raises:
        FkpError: pairs that look wrong, all of them.
    """
    mean = mean_shape(points)
    mirrored = mean * (-1, 1)
    distance = np.linalg.norm(mean[:, None] - mirrored[None], axis=2)  # [i, j]: of point i to the mirror of point j
    faults = []
    for i, name in enumerate(markup.points):
        j = int(markup.flip[i])
        if not np.isfinite(distance[i, j]):
            continue
        best = int(np.nanargmin(distance[i]))
        swapped, best_is = markup.points[j], markup.points[best]
        if distance[i, j] > distance[i, best] + CLEARLY:
            pair = f"is paired with {swapped}" if i != j else "is its own partner"
            faults.append(f"{name} {pair}, but its mirror image lies on {best_is}")
    swap, stay = np.nansum(np.diagonal(distance[:, markup.flip])), np.nansum(np.diagonal(distance))
    if faults or swap > stay:
        worse = [] if swap <= stay else ["with left and right swapped, the mirrored mean face fits worse than without"]
        raise FkpError(
            f"markup {markup.name}: left and right do not fit the labels, so flips would teach wrong points:\n  "
            + "\n  ".join([*worse, *faults])
            + "\nName the points so that partners differ only in `right` and `left`, in the order of the labels."
        )
