"""Map what a trained network finds to other points: the user's own, from a few labelled faces.

A trained heat map network knows much about faces: where its own points lie, and what their
surroundings look like. A linear map on top of it turns this into other points. Its weights have a
closed form (`fkp.own_points`), so that 50 labelled faces and some seconds suffice.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fkp.codecs import SoftArgmax
from fkp.networks import HeatMaps

# Aligned coordinates have a unit of a 128th of the crop's side: one pixel of the shipped weights'
# crops. In this unit, shapes and standardised features have about the same variance.
UNITS = 128

# The features around a point are sampled at a grid of 3 x 3 places, so many units apart.
STEP = 5.0


class Seen(NamedTuple):
    """What the trunk finds in B crops.

    Attributes:
        features: (B, C, h, w).
        found: (B, J, 2), the trunk's points, UNITS from the crop's centre.
        spread: (B, J), standard deviation of the trunk's heat maps, in sides of the crop.
        turn: (B, 2), the complex factor (cos, sin, both times the scale) that aligns `found`.
    """

    features: Tensor
    found: Tensor
    spread: Tensor
    turn: Tensor


class PointMap(nn.Module):
    """Map the points and features of a trained heat map network to other points.

    1. The trunk finds its own J points, and a similarity aligns them with their mean shape.
    2. A linear map leads from the aligned points, and from the features at them, to K points.
    3. For each of the K points, a linear map leads from the features around it to a correction.

    All of it is differentiable, so that a training can finetune it.

    Args:
        points: K, the number of points.
        trunk: the trained network.
        codec: of the trunk.
    """

    # (9, 2), from the point.
    offsets: Tensor
    shape: Tensor
    spread_weight: Tensor

    def __init__(self, points: int, trunk: HeatMaps, codec: SoftArgmax):
        super().__init__()
        self.points, self.trunk, self.codec = points, trunk, codec
        count, channels = trunk.maps.out_channels, trunk.maps.in_channels

        steps = torch.tensor([-STEP, 0.0, STEP])
        grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).reshape(-1, 2)
        self.register_buffer("offsets", grid, persistent=False)
        self.register_buffer("shape", torch.ones(count, 2).cumsum(0))
        self.register_buffer("spread_weight", torch.full((points, count), 1 / count))

        self.weight = nn.Parameter(torch.zeros(count * (2 + channels), 2 * points))
        self.bias = nn.Parameter(torch.zeros(2 * points))
        self.local_weight = nn.Parameter(torch.zeros(points, len(grid) * channels, 2))
        self.local_bias = nn.Parameter(torch.zeros(points, 2))

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, C, h, w) in [0, 1] to (B, K, 3).

        For each point x and y, in sides of the crop from its centre, and its standard deviation in
        sides of the crop.
        """
        seen = self.see(image)

        # The linear map, then the correction, in aligned coordinates: (B, K, 2).
        first = (self.inputs(seen) @ self.weight + self.bias).unflatten(1, (-1, 2))
        around = self.surroundings(seen, first)  # (B, K, 9 C)
        aligned = first + torch.einsum("bkd,kdc->bkc", around, self.local_weight) + self.local_bias

        points = self.unaligned(seen, aligned) / UNITS  # (B, K, 2)
        return torch.cat([points, self.spread(seen)[..., None]], -1)

    def see(self, image: Tensor) -> Seen:
        """Run the trunk on images (B, C, h, w) in [0, 1]."""
        features = self.trunk.features(image)
        logits = self.trunk.maps(features).contiguous()

        points, _ = self.codec.decode(logits)  # CROP pixels
        found = (points - self.codec.middle) * (UNITS / self.codec.size)
        spread = self.codec.spread(logits).clamp_min(1e-6)
        return Seen(features, found, spread, turn(found, self.shape))

    def inputs(self, seen: Seen) -> Tensor:
        """Gather the inputs of the linear map: aligned points, and features at them, (B, D)."""
        features = self._sample(seen.features, seen.found)  # (B, J, C)
        return torch.cat([self.aligned(seen, seen.found).flatten(1), features.flatten(1)], 1)

    def surroundings(self, seen: Seen, aligned: Tensor) -> Tensor:
        """Gather the features around points (B, K, 2) in aligned coordinates: (B, K, 9 C)."""
        places = (aligned[:, :, None] + self.offsets).flatten(1, 2)  # (B, 9 K, 2)
        features = self._sample(seen.features, self.unaligned(seen, places))  # (B, 9 K, C)
        return features.unflatten(1, (-1, len(self.offsets))).flatten(2)

    def spread(self, seen: Seen) -> Tensor:
        """Average the standard deviations of the trunk's points near each point: (B, K)."""
        return (seen.spread.log() @ self.spread_weight.T).exp()

    def aligned(self, seen: Seen, points: Tensor) -> Tensor:
        """Map points (B, n, 2), UNITS from the crop's centre, to aligned coordinates."""
        return _turned(points - seen.found.mean(1, keepdim=True), seen.turn)

    def unaligned(self, seen: Seen, points: Tensor) -> Tensor:
        """Map points (B, n, 2) in aligned coordinates to UNITS from the crop's centre."""
        # The inverse of a complex factor is its conjugate over the square of its size.
        back = seen.turn * seen.turn.new_tensor([1, -1])
        back = back / seen.turn.square().sum(1, keepdim=True)
        return _turned(points, back) + seen.found.mean(1, keepdim=True)

    def _sample(self, features: Tensor, places: Tensor) -> Tensor:
        """Interpolate features (B, C, h, w) at places (B, n, 2) in UNITS: (B, n, C)."""
        # To -1 … 1, from edge to edge: a pixel's centre is half a pixel from its edge, and so the
        # centre of the crop is the centre of the features.
        grid = places[:, :, None] * (2 / UNITS)  # (B, n, 1, 2)
        sampled = F.grid_sample(
            features.float(), grid.float(), padding_mode="border", align_corners=False
        )
        return sampled[..., 0].transpose(1, 2)


def turn(points: Tensor, shape: Tensor) -> Tensor:
    """Fit the complex factors (B, 2) that turn and scale points (B, J, 2) onto a shape (J, 2)."""
    points, shape = points - points.mean(1, keepdim=True), shape - shape.mean(0)
    real = (points * shape).sum((1, 2))
    imaginary = (points[..., 0] * shape[:, 1] - points[..., 1] * shape[:, 0]).sum(1)
    size = points.square().sum((1, 2)).clamp_min(1e-6)
    return torch.stack([real, imaginary], -1) / size[:, None]


def _turned(points: Tensor, turn: Tensor) -> Tensor:
    """Multiply points (B, n, 2), as complex numbers, by factors (B, 2)."""
    real, imaginary = turn[:, None, 0], turn[:, None, 1]
    x, y = points[..., 0], points[..., 1]
    return torch.stack([real * x - imaginary * y, imaginary * x + real * y], -1)
