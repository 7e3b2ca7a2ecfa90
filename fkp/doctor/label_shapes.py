"""Check the shapes of labels against the mean shape and a principal component model."""

from __future__ import annotations

import numpy as np

from fkp.data.shapes import onto
from fkp.data.table import FaceTable
from fkp.doctor.findings import Suspect
from fkp.geometry import apply
from fkp.markup import Markup

# A point is odd if its distance from the predicted place is this many times the usual one.
ODD_SHAPE = 8.0

# And broken if it is also farther than this, in sizes of a face: real faces are not so odd.
BROKEN = 0.3

# Labels are swapped if swapping left and right reduces the residual to this fraction.
SWAPPED = 0.5

# At most this many modes of the model, with at least so many faces and coordinates for each.
MAX_MODES, FACES_PER_MODE, COORDINATES_PER_MODE = 16, 25, 4

# Least distance, in sizes of a face, that counts as usual.
MIN_USUAL = 1e-3


def swapped_sides(table: FaceTable, markup: Markup, mean: np.ndarray) -> list[Suspect]:
    """Find faces that fit the mean shape (K, 2) much better with left and right swapped."""
    if not markup.flips:
        return []
    as_is = _residual(table.points, mean)
    swapped = _residual(table.points[:, markup.flip_indices], mean)

    chosen = np.flatnonzero(swapped < SWAPPED * as_is).tolist()
    ratios = {i: float(as_is[i] / swapped[i]) for i in chosen}
    return [
        Suspect(ratio, i, f"{ratio:.1f} times closer to the mean shape when swapped")
        for i, ratio in ratios.items()
    ]


def odd_shapes(
    table: FaceTable, markup: Markup, affines: np.ndarray, mean: np.ndarray
) -> tuple[list[Suspect], list[Suspect]]:
    """Find faces with a point far from where the other faces' shapes predict it.

    Args:
        table: F faces.
        markup: of the points.
        affines: (F, 2, 3) from each face to the mean shape.
        mean: (K, 2) mean shape, in sizes of a face.

    Returns:
        Odd shapes and broken shapes, worst first.
    """
    shapes = apply(affines, table.points) - mean  # (F, K, 2)
    shapes = np.where(np.isfinite(shapes), shapes, 0).reshape(len(shapes), -1)  # (F, 2 K)
    modes = min(MAX_MODES, len(shapes) // FACES_PER_MODE, shapes.shape[1] // COORDINATES_PER_MODE)

    # First compare with the mean only; then fit the model twice, each time without the faces found
    # before, as it would learn their faults.
    keep = np.ones(len(shapes), bool)
    for count in (0, modes, modes):
        distance = _distance_to_model(shapes, keep, count)  # (F, K)
        usual = np.maximum(np.median(distance[keep], 0), MIN_USUAL)
        score = distance / usual / ODD_SHAPE
        keep = score.max(1) < 1
        if keep.sum() < 2:
            return [], []

    chosen = np.flatnonzero(~keep)
    odd: list[Suspect] = []
    broken: list[Suspect] = []
    for i in chosen[np.argsort(-score.max(1)[chosen])].tolist():
        worst = score[i].argmax()
        off = distance[i, worst]
        why = f"{markup.points[worst]} is off by {100 * off:.0f} % of the face's size"
        (broken if off > BROKEN else odd).append(Suspect(float(score[i, worst]), i, why))
    return odd, broken


def _residual(points: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the RMS distance (F,) of aligned points (F, K, 2) from a shape (K, 2)."""
    distance = np.linalg.norm(apply(onto(points, mean), points) - mean, axis=2)  # (F, K)
    return np.sqrt(np.nanmean(distance**2, 1))


def _distance_to_model(shapes: np.ndarray, keep: np.ndarray, modes: int) -> np.ndarray:
    """Compute the distance (F, K) of points from a principal component model.

    Args:
        shapes: (F, 2 K) aligned shapes.
        keep: (F,) faces to fit the model to.
        modes: number of components.
    """
    centre = shapes[keep].mean(0)
    _, _, axes = np.linalg.svd(shapes[keep] - centre, full_matrices=False)
    rest = shapes - centre
    rest = rest - (rest @ axes[:modes].T) @ axes[:modes]
    return np.linalg.norm(rest.reshape(len(shapes), -1, 2), axis=2)
