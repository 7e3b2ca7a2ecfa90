"""One face of an image: its points, their confidence, and its box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(repr=False)
class Face:
    """One face of a picture.

    Args:
        points: (K, 2) float32, x y, IMAGE pixels.
        confidence: (K,) float32 in [0, 1]: the chance that a point lies within 5 % of the outer-eye distance of where a
            person would put it; 1 from a network that was not trained to tell.
        box: (4,) float32: left, top, right, bottom, IMAGE pixels.
        score: how sure the detector is; 1 for a box that was given. Comparable within one detector only.
        track: the face's number in a film, from 1; None in a picture.
    """

    points: np.ndarray
    confidence: np.ndarray
    box: np.ndarray
    score: float
    track: int | None = None

    def __repr__(self) -> str:
        left, top, right, bottom = self.box
        number = "" if self.track is None else f" {self.track}"
        return (
            f"Face{number}({len(self.points)} points in {left:.0f}, {top:.0f} … {right:.0f}, {bottom:.0f}, "
            f"score {self.score:.2f}, confidence {self.confidence.mean():.2f})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None for what is no finite number."""
        return {
            "points": _rounded(self.points, 3),
            "confidence": _rounded(self.confidence, 4),
            "box": _rounded(self.box, 2),
            "score": _rounded(self.score, 4),
        } | ({} if self.track is None else {"track": self.track})


def _rounded(values: ArrayLike, digits: int) -> Any:
    """Numbers as plain values: float64 first, as a rounded float32 has all its binary digits again."""
    rounded = np.asarray(values, float).round(digits)
    return np.where(np.isfinite(rounded), rounded, np.array(None)).tolist()
