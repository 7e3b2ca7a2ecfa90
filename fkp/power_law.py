"""Power law: fit how the error falls with the number of training faces, and extrapolate it.

Source: Hestness et al., "Deep Learning Scaling is Predictable, Empirically" (2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Exponents that are tried: 0 is no progress, 1/2 is the rate of an average, 2 is faster than any.
EXPONENTS = np.linspace(0, 2, 101)


@dataclass(frozen=True)
class PowerLaw:
    """State the error of N training faces: a + b N^-c.

    Args:
        a, b, c: numbers, or arrays (D,) of D laws; a and b are at least 0, c lies in [0, 2].
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray

    def __call__(self, faces: float) -> np.ndarray:
        """Return the error of a number of faces, (D,)."""
        return self.a + self.b * faces**-self.c


def fit(faces: np.ndarray, errors: np.ndarray) -> PowerLaw:
    """Fit laws to errors by least squares of the relative deviations.

    For each exponent, a and b follow in closed form; so the best of all exponents is found, not a
    local optimum.

    Args:
        faces: (S,) numbers of training faces.
        errors: (S,), or (D, S) for D laws; above 0.

    >>> law = fit(np.array([10, 40, 160]), 2 + 10 * np.array([10, 40, 160]) ** -0.5)
    >>> [round(float(value), 2) for value in (law.a, law.b, law.c, law(640))]
    [2.0, 10.0, 0.5, 2.4]
    """
    errors = np.asarray(errors, float)
    weights = errors**-2  # (..., S)
    least = np.full(errors.shape[:-1], np.inf)
    a, b, c = (np.zeros(errors.shape[:-1]) for _ in range(3))

    for exponent in EXPONENTS:
        x = np.asarray(faces, float) ** -exponent  # (S,)
        offset, factor = _line(x, errors, weights)
        deviations = offset[..., None] + factor[..., None] * x - errors
        total = (weights * deviations**2).sum(-1)

        better = total < least * (1 - 1e-9)
        least = np.where(better, total, least)
        a, b = np.where(better, offset, a), np.where(better, factor, b)
        c = np.where(better, exponent, c)
    return PowerLaw(a, b, c)


def _line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit y = offset + factor x by weighted least squares, with both at least 0.

    Args:
        x: (S,).
        y, weights: (..., S).
    """
    w, wx, wy = weights.sum(-1), (weights * x).sum(-1), (weights * y).sum(-1)
    wxx, wxy = (weights * x * x).sum(-1), (weights * x * y).sum(-1)
    det = w * wxx - wx * wx
    singular = det <= 1e-12 * w * wxx  # all x alike
    factor = np.where(singular, 0, (w * wxy - wx * wy) / np.where(singular, 1, det))
    offset = (wy - factor * wx) / w

    # Where one of them would be below 0, it is 0, and the other follows alone.
    falling, passing = factor < 0, offset < 0
    factor = np.where(falling, 0, np.where(passing, wxy / wxx, factor))
    offset = np.where(falling, wy / w, np.where(passing, 0, offset))
    return offset, factor
