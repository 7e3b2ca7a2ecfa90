"""Points <-> what a network emits; encode and decode live in one object."""

from __future__ import annotations

import torch
from torch import Tensor


class Coordinates:
    """The network emits the points themselves, from the middle of the crop, in units of `unit` pixels.

    The published system normalised points as (x - 100) / 50; here the middle is the crop's own.

    Args:
        size: side of the crop, pixels.
        unit: pixels that the network calls 1.
    """

    def __init__(self, size: int = 224, unit: float = 50.0):
        self.middle, self.unit = (size - 1) / 2, unit

    def encode(self, points: Tensor) -> Tensor:
        """(B, K, 2) CROP pixels to (B, 2 K)."""
        return ((points - self.middle) / self.unit).flatten(-2)

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2 K) to points (B, K, 2) in CROP pixels and confidence (B, K).

        Bare coordinates say nothing of how sure they are: confidence is 1.
        """
        points = output.unflatten(-1, (-1, 2)) * self.unit + self.middle
        return points, torch.ones_like(points[..., 0])
