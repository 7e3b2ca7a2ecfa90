"""Points <-> what a network emits; encode and decode live in one object.

Every codec has `encode` (labels to what a loss compares), `coordinates` (raw output to the same) and `decode` (raw
output to CROP pixels and confidence).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Codec(Protocol):
    """What all codecs are."""

    def encode(self, points: Tensor) -> Tensor: ...

    def coordinates(self, output: Tensor) -> Tensor: ...

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]: ...


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

    def coordinates(self, output: Tensor) -> Tensor:
        """(B, 2 K) as it is."""
        return output

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2 K) to points (B, K, 2) in CROP pixels and confidence (B, K).

        Bare coordinates say nothing of how sure they are: confidence is 1.
        """
        points = output.unflatten(-1, (-1, 2)) * self.unit + self.middle
        return points, torch.ones_like(points[..., 0])


class SoftArgmax:
    """The network emits a map of logits for each point; the point is the mean place under the map's softmax.

    Differentiable, and finer than a cell (Nibali et al., "Numerical Coordinate Regression with CNNs", 2018; Sun et al.,
    "Integral Human Pose Regression", 2018).

    Args:
        size: side of the crop, pixels.
        unit: pixels that a loss calls 1.
        reach: confidence is the mass of the map within this many cells of the point.
    """

    def __init__(self, size: int = 112, unit: float = 1.12, reach: float = 2.0):
        self.size, self.unit, self.reach = size, unit, reach

    def encode(self, points: Tensor) -> Tensor:
        """(B, K, 2) CROP pixels to (B, 2 K), from the middle of the crop, in units."""
        return ((points - (self.size - 1) / 2) / self.unit).flatten(-2)

    def coordinates(self, output: Tensor) -> Tensor:
        """(B, K, h, w) logits to (B, 2 K), as `encode` gives labels."""
        return self.encode(self._mean(output.flatten(-2).softmax(-1).view_as(output)))

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, h, w) logits to points (B, K, 2) in CROP pixels and confidence (B, K) in [0, 1], not calibrated."""
        mass = output.flatten(-2).softmax(-1).view_as(output)
        points = self._mean(mass)
        x, y = self._places(mass)
        cell = self.size / mass.shape[-1]
        apart = (x - points[..., None, None, 0]) ** 2 + (y[:, None] - points[..., None, None, 1]) ** 2
        near = apart <= (self.reach * cell) ** 2
        return points, (mass * near).sum((-2, -1)).clamp(0, 1)

    def _mean(self, mass: Tensor) -> Tensor:
        x, y = self._places(mass)
        return torch.stack([(mass.sum(-2) * x).sum(-1), (mass.sum(-1) * y).sum(-1)], -1)

    def _places(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """CROP x of each column, y of each row: the cell's centre."""
        height, width = mass.shape[-2:]
        x = torch.arange(width, device=mass.device, dtype=mass.dtype)
        y = torch.arange(height, device=mass.device, dtype=mass.dtype)
        return (x + 0.5) * self.size / width - 0.5, (y + 0.5) * self.size / height - 0.5
