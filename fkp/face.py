"""Face: the key points of one face of an image, their confidence, and the face box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(repr=False)
class Face:
    """Hold the key points of one face of an image.

    Args:
        points: (K, 2) float32, x y, IMAGE pixels.
        confidence: (K,) float32 in [0, 1]: the probability that a point lies within 5 % of the
            outer-eye distance of where a person would label it; 1 from a network that does not
            estimate it.
        box: (4,) float32: left, top, right, bottom, IMAGE pixels.
        score: of the detector, comparable within one detector only; 1 for a box that was given.
        track: number of the face in a video, from 1; None in an image.
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
            f"Face{number}({len(self.points)} points in "
            f"{left:.0f}, {top:.0f} … {right:.0f}, {bottom:.0f}, "
            f"score {self.score:.2f}, confidence {self.confidence.mean():.2f})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; None for numbers that are not finite."""
        values = {
            "points": _rounded(self.points, 3),
            "confidence": _rounded(self.confidence, 4),
            "box": _rounded(self.box, 2),
            "score": _rounded(self.score, 4),
        }
        if self.track is not None:
            values["track"] = self.track
        return values


def _rounded(values: ArrayLike, digits: int) -> Any:
    """Round numbers and return them as plain values.

    In float64: a rounded float32 would be written with all the digits of its binary value.
    """
    rounded = np.asarray(values, float).round(digits)
    return np.where(np.isfinite(rounded), rounded, np.array(None)).tolist()
