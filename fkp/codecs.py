"""Codecs: encode points to what a loss compares, and decode what a network emits to points.

encode       points (CROP pixels)    -> target, in the codec's units
coordinates  raw output              -> the same units as the target
points       coordinates             -> points (CROP pixels); undoes `encode`
decode       raw output              -> points (CROP pixels) and confidence
nll          raw output, points      -> negative log-likelihood of the points
spread       raw output              -> standard deviation of each point, which is calibrated
                                        to confidence after training (`fkp.calibration`)
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fkp.calibration import Calibration, confidence


class Codec(Protocol):
    """The interface of all codecs; shapes as in the module's table."""

    calibration: Calibration | None

    def encode(self, points: Tensor) -> Tensor: ...

    def coordinates(self, output: Tensor) -> Tensor: ...

    def points(self, coordinates: Tensor) -> Tensor: ...

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]: ...

    def nll(self, output: Tensor, points: Tensor) -> Tensor: ...

    def spread(self, output: Tensor) -> Tensor | None: ...


class _Centred:
    """Measure points from the centre of a crop of `size` pixels, in units of `unit` pixels."""

    def __init__(self, size: int, unit: float, calibration: Calibration | None = None):
        self.size, self.middle, self.unit = size, (size - 1) / 2, unit
        self.calibration = calibration

    def encode(self, points: Tensor) -> Tensor:
        """Encode points (B, K, 2) in CROP pixels as (B, 2 K)."""
        return ((points - self.middle) / self.unit).flatten(-2)

    def points(self, coordinates: Tensor) -> Tensor:
        """Return points (B, K, 2) in CROP pixels for coordinates (B, 2 K)."""
        return coordinates.unflatten(-1, (-1, 2)) * self.unit + self.middle


class Coordinates(_Centred):
    """Take the network's output as coordinates.

    The published system normalises points as (x - 100) / 50; here the origin is the crop's centre.

    Args:
        size: side of the crop, pixels.
        unit: pixels that the network calls 1.
    """

    def __init__(self, size: int = 224, unit: float = 50.0):
        super().__init__(size, unit)

    def coordinates(self, output: Tensor) -> Tensor:
        """Return (B, 2 K) unchanged."""
        return output

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Decode (B, 2 K) to points (B, K, 2) in CROP pixels and confidence (B, K).

        Coordinates carry no uncertainty: confidence is 1.
        """
        points = self.points(output)
        return points, torch.ones_like(points[..., 0])

    def nll(self, output: Tensor, points: Tensor) -> Tensor:
        """Return zeros (B, K): coordinates are no distribution."""
        return torch.zeros_like(points[..., 0])

    def spread(self, output: Tensor) -> None:
        """Return None: coordinates carry no uncertainty."""


class Located(_Centred):
    """Take the network's output as points and their standard deviations, both in sides of the crop.

    Args:
        size: side of the crop, pixels.
        unit: pixels that a loss calls 1.
        calibration: a, b of `fkp.calibration.confidence`; None before training has found them.
    """

    def coordinates(self, output: Tensor) -> Tensor:
        """Return (B, 2 K), in the units of `encode`, for (B, K, 3)."""
        return (output[..., :2] * (self.size / self.unit)).flatten(-2)

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Decode (B, K, 3) to points (B, K, 2) in CROP pixels and confidence (B, K)."""
        points, spread = output[..., :2] * self.size + self.middle, output[..., 2]
        if self.calibration is None:
            return points, torch.ones_like(spread)
        return points, confidence(spread, self.calibration)

    def nll(self, output: Tensor, points: Tensor) -> Tensor:
        """Return zeros (B, K): the standard deviations are not learned."""
        return torch.zeros_like(points[..., 0])

    def spread(self, output: Tensor) -> Tensor:
        """Return the standard deviation of each point, (B, K), in sides of the crop."""
        return output[..., 2]


class SoftArgmax(_Centred):
    """Take the network's output as one heat map per point, and its mean as the point.

    The mean of the softmax is differentiable, and finer than a cell of the map.

    Source: Nibali et al., "Numerical Coordinate Regression with CNNs" (2018); Sun et al.,
    "Integral Human Pose Regression" (2018).

    Args:
        size: side of the crop, pixels.
        unit: pixels that a loss calls 1.
        calibration: a, b of `fkp.calibration.confidence`; None before training has found them.
    """

    def __init__(
        self,
        size: int = 112,
        unit: float = 1.12,
        calibration: tuple[float, float] | None = None,
    ):
        super().__init__(size, unit, calibration)

    def coordinates(self, output: Tensor) -> Tensor:
        """Return (B, 2 K), in the units of `encode`, for logits (B, K, h, w)."""
        return self.encode(self.decode(output)[0])

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Decode logits (B, K, h, w) to points (B, K, 2) in CROP pixels and confidence (B, K).

        Confidence is 1 for all points before calibration.
        """
        points, spread = self._moments(output)
        if self.calibration is None:
            return points, torch.ones_like(spread)
        return points, confidence(spread, self.calibration)

    def spread(self, output: Tensor) -> Tensor:
        """Return the standard deviation of each heat map, (B, K), in sides of the crop."""
        return self._moments(output)[1]

    def _moments(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mean (B, K, 2), CROP pixels, and standard deviation (B, K) of each heat map."""
        height, width = output.shape[-2:]

        # The centre of each cell, in pixels from the centre of the crop.
        y, x = (
            ((torch.arange(n, device=output.device) + 0.5) / n - 0.5) * self.size
            for n in (height, width)
        )
        cells = torch.stack([x.repeat(height), y.repeat_interleave(width)], -1)  # (h w, 2)
        moments = torch.cat([cells, cells.square().sum(-1, keepdim=True)], -1)  # (h w, 3)

        # Half precision resolves one pixel of 112: the sums run in single precision.
        with torch.autocast(output.device.type, enabled=False):
            means = output.flatten(-2).float().softmax(-1) @ moments  # (B, K, 3)
        variance = means[..., 2] - means[..., :2].detach().square().sum(-1)
        return means[..., :2] + self.middle, variance.clamp_min(0).sqrt() / self.size

    def nll(self, output: Tensor, points: Tensor) -> Tensor:
        """Compute the negative log-likelihood of points under the heat maps.

        Each of the four cells around a point counts with its weight in bilinear interpolation, so
        the likeliest map decodes to the point.

        Args:
            output: (B, K, h, w) logits.
            points: (B, K, 2), CROP pixels.

        Returns:
            (B, K), nats.
        """
        logs = output.flatten(-2).float().log_softmax(-1).view_as(output)
        height, width = logs.shape[-2:]
        x = self._cell_weights(points[..., 0], width)  # (B, K, w)
        y = self._cell_weights(points[..., 1], height)  # (B, K, h)
        return -((logs * x[..., None, :]).sum(-1) * y).sum(-1)

    def _cell_weights(self, places: Tensor, cells: int) -> Tensor:
        """Return the bilinear weight of each cell, (B, K, cells), for places (B, K), CROP pixels.

        Places outside the crop count for the outermost cell.
        """
        at = ((places + 0.5) * cells / self.size - 0.5).clamp(0, cells - 1)
        distance = (at[..., None] - torch.arange(cells, device=at.device)).abs()
        return (1 - distance).clamp_min(0)
