"""Fit a linear map from the 68 points that the shipped weights find to points of one's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fkp.data.folds import dealt
from fkp.data.shapes import mean_shape
from fkp.data.table import FaceTable
from fkp.geometry import apply, invert, similarity
from fkp.inference.predictor import Predictor

# Weights of the Tikhonov term that are tried, in units of the features' mean variance per face.
PENALTIES = np.logspace(-6, 1, 15)
FOLDS = 5  # of the people, for the choice among them


class ShippedRidge:
    """Fit ridge regressions from the shipped weights' points; these are found once per face.

    The 68 points of a face are aligned to their mean shape by a similarity, and the labels with
    them. The weight of the Tikhonov term is chosen by cross-validation over people.

    Args:
        predictor: whose points are the features; None for the shipped weights.
    """

    def __init__(self, predictor: Predictor | None = None):
        self._predictor = predictor
        self._found: dict[str, np.ndarray] = {}  # row of a face -> its points, IMAGE pixels

    def __call__(self, faces: FaceTable) -> Callable[[FaceTable], np.ndarray]:
        """Fit the map to faces with boxes; it returns the points (F, K, 2) of other faces."""
        found = self.points(faces)  # (F, 68, 2)
        shape = mean_shape(found)
        to_shape = similarity(found, shape)
        features = apply(to_shape, found).reshape(len(faces), -1)  # (F, 136)
        labels = apply(to_shape, faces.points)  # (F, K, 2)
        folds = dealt(faces.identity, FOLDS)

        # Points that are labelled in the same faces are solved together.
        known = np.isfinite(labels).all(2)  # (F, K)
        maps = np.full((features.shape[1] + 1, labels.shape[1], 2), np.nan)
        for mask in np.unique(known, axis=1).T:
            same = (known == mask[:, None]).all(0)
            if mask.any():
                targets = labels[mask][:, same].reshape(mask.sum(), -1)
                solved = _cross_validated(features[mask], targets, folds[mask])
                maps[:, same] = solved.reshape(len(solved), -1, 2)

        def predict(others: FaceTable) -> np.ndarray:
            seen = self.points(others)
            affines = similarity(seen, shape)
            inputs = _with_one(apply(affines, seen).reshape(len(others), -1))
            points = np.einsum("fi,ikx->fkx", inputs, maps)
            return apply(invert(affines), points)

        return predict

    def points(self, faces: FaceTable) -> np.ndarray:
        """Return the points (F, 68, 2) that the network finds in the faces' boxes.

        Raises:
            FkpError: an image cannot be read.
        """
        new = [i for i, row in enumerate(faces.rows) if row not in self._found]
        if new:
            self._predictor = self._predictor or Predictor.load()
            for i in new:
                (face,) = self._predictor(faces.paths[i], boxes=faces.boxes[i][None])
                self._found[faces.rows[i]] = face.points.astype(float)
        return np.stack([self._found[row] for row in faces.rows])


def _cross_validated(x: np.ndarray, y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Solve a ridge regression, its penalty chosen by cross-validation.

    Args:
        x: (F, I) features.
        y: (F, O) targets.
        folds: (F,) the fold of each face.

    Returns:
        (I + 1, O), the last row for the constant.
    """
    errors = np.zeros(len(PENALTIES))
    for fold in np.unique(folds):
        test = folds == fold
        if test.all():
            # A single person: nothing can be compared, so the largest penalty is the safe one.
            return _solutions(x, y)[-1]
        for i, solution in enumerate(_solutions(x[~test], y[~test])):
            errors[i] += np.linalg.norm(
                (_with_one(x[test]) @ solution - y[test]).reshape(test.sum(), -1, 2), axis=2
            ).sum()
    return _solutions(x, y)[errors.argmin()]


def _solutions(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Solve the regression for each penalty, by one singular value decomposition."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    u, s, vt = np.linalg.svd(x - x_mean, full_matrices=False)
    unit = max(float((s**2).sum()) / x.shape[1], 1e-12)
    projected = u.T @ (y - y_mean)
    solutions = []
    for penalty in PENALTIES:
        factor = vt.T @ ((s / (s**2 + penalty * unit))[:, None] * projected)  # (I, O)
        solutions.append(np.vstack([factor, y_mean - x_mean @ factor]))
    return solutions


def _with_one(x: np.ndarray) -> np.ndarray:
    """Append the constant 1 to features (F, I)."""
    return np.hstack([x, np.ones((len(x), 1))])
