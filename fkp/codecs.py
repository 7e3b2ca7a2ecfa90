"""Points <-> what a network emits; encode and decode live in one object.

Every codec has `encode` (labels to what a loss compares), `coordinates` (raw output to the same), `points` (the same to
CROP pixels), `decode` (raw output to CROP pixels and confidence), `surprise` (how unlikely it finds a label), and
`spread` (how wide it leaves a point), by which confidence is calibrated once a network is trained.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fkp.calibration import Calibration, confidence


class Codec(Protocol):
    """What all codecs are."""

    def encode(self, points: Tensor) -> Tensor: ...

    def coordinates(self, output: Tensor) -> Tensor: ...

    def points(self, coordinates: Tensor) -> Tensor: ...

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]: ...

    def surprise(self, output: Tensor, points: Tensor) -> Tensor: ...

    def spread(self, output: Tensor) -> Tensor | None: ...

    calibration: Calibration | None


class _Units:
    """Points from the middle of a crop of `size` pixels, in units of `unit` pixels."""

    def __init__(self, size: int, unit: float, calibration: Calibration | None = None):
        self.size, self.middle, self.unit, self.calibration = size, (size - 1) / 2, unit, calibration

    def encode(self, points: Tensor) -> Tensor:
        """(B, K, 2) CROP pixels to (B, 2 K)."""
        return ((points - self.middle) / self.unit).flatten(-2)

    def points(self, coordinates: Tensor) -> Tensor:
        """(B, 2 K) to (B, K, 2) CROP pixels: `encode` undone."""
        return coordinates.unflatten(-1, (-1, 2)) * self.unit + self.middle


class Coordinates(_Units):
    """The network emits the points themselves, from the middle of the crop, in units of `unit` pixels.

    The published system normalised points as (x - 100) / 50; here the middle is the crop's own.

    Args:
        size: side of the crop, pixels.
        unit: pixels that the network calls 1.
    """

    def __init__(self, size: int = 224, unit: float = 50.0):
        super().__init__(size, unit)

    def coordinates(self, output: Tensor) -> Tensor:
        """(B, 2 K) as it is."""
        return output

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2 K) to points (B, K, 2) in CROP pixels and confidence (B, K).

        Bare coordinates say nothing of how sure they are: confidence is 1.
        """
        points = self.points(output)
        return points, torch.ones_like(points[..., 0])

    def surprise(self, output: Tensor, points: Tensor) -> Tensor:
        """(B, K) zeros: bare coordinates are no distribution."""
        return torch.zeros_like(points[..., 0])

    def spread(self, output: Tensor) -> None:
        """None: bare coordinates have none."""


class SoftArgmax(_Units):
    """The network emits a map of logits for each point; the point is the mean place under the map's softmax.

    Differentiable, and finer than a cell (Nibali et al., "Numerical Coordinate Regression with CNNs", 2018; Sun et al.,
    "Integral Human Pose Regression", 2018).

    Args:
        size: side of the crop, pixels.
        unit: pixels that a loss calls 1.
        calibration: a, b of `fkp.calibration.confidence`, found in training; None until then.
    """

    def __init__(self, size: int = 112, unit: float = 1.12, calibration: tuple[float, float] | None = None):
        super().__init__(size, unit, calibration)

    def coordinates(self, output: Tensor) -> Tensor:
        """(B, K, h, w) logits to (B, 2 K), as `encode` gives labels."""
        return self.encode(self.decode(output)[0])

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, h, w) logits to points (B, K, 2) in CROP pixels and confidence (B, K): the chance that a point is near
        its label, 1 as long as that is not calibrated."""
        points, spread = self._moments(output)
        return points, torch.ones_like(spread) if self.calibration is None else confidence(spread, self.calibration)

    def spread(self, output: Tensor) -> Tensor:
        """(B, K, h, w) logits to (B, K): root mean square distance of a map's mass from its middle, in crop's sides."""
        return self._moments(output)[1]

    def _moments(self, output: Tensor) -> tuple[Tensor, Tensor]:
        height, width = output.shape[-2:]
        # A cell's place is its centre, here from the crop's middle.
        y, x = (((torch.arange(n, device=output.device) + 0.5) / n - 0.5) * self.size for n in (height, width))
        places = torch.stack([x.repeat(height), y.repeat_interleave(width)], -1)
        moments = torch.cat([places, places.square().sum(-1, keepdim=True)], -1)
        # Half precision has steps of a pixel at 112: places are summed in single.
        with torch.autocast(output.device.type, enabled=False):
            means = output.flatten(-2).float().softmax(-1) @ moments
        variance = means[..., 2] - means[..., :2].detach().square().sum(-1)
        return means[..., :2] + self.middle, variance.clamp_min(0).sqrt() / self.size

    def surprise(self, output: Tensor, points: Tensor) -> Tensor:
        """-log of the mass that maps (B, K, h, w) give the four cells round points (B, K, 2): (B, K), in nats.

        Each cell counts as bilinear interpolation would weigh it, so the likeliest map decodes to its label.
        """
        logs = output.flatten(-2).float().log_softmax(-1).view_as(output)
        height, width = logs.shape[-2:]
        x, y = (self._shares(points[..., axis], cells) for axis, cells in ((0, width), (1, height)))
        return -((logs * x[..., None, :]).sum(-1) * y).sum(-1)

    def _shares(self, places: Tensor, cells: int) -> Tensor:
        """(B, K) CROP pixels to (B, K, cells): how much of each belongs to which cell; outside, to the outermost."""
        at = ((places + 0.5) * cells / self.size - 0.5).clamp(0, cells - 1)
        return (1 - (at[..., None] - torch.arange(cells, device=at.device)).abs()).clamp_min(0)
