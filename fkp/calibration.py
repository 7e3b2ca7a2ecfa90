"""How sure a point is: from how wide the network leaves it to the chance that it is near its label."""

from __future__ import annotations

import torch
from torch import Tensor

NEAR = 0.05  # of the outer-eye distance: a point within this of its label is near
Calibration = tuple[float, float]


def confidence(spread: Tensor, calibration: Calibration) -> Tensor:
    """The chance that a point is near its label: 1 / (1 + exp(-a - b log spread)).

    Args:
        spread: (...), as `fkp.codecs` gives it, positive.
        calibration: a, b.

    Returns:
        (...) in [0, 1].
    """
    a, b = calibration
    return torch.sigmoid(a + b * torch.log(spread.clamp_min(1e-6)))


def calibrate(spread: Tensor, near: Tensor, steps: int = 30) -> Calibration:
    """Fit a and b of `confidence` to points that were or were not near their labels: logistic regression, by Newton's
    method (Platt, "Probabilistic Outputs for Support Vector Machines", 1999).

    Args:
        spread: (N,), positive.
        near: (N,) bool.
        steps: of Newton's method; a handful suffice.

    Returns:
        a, b; all points as sure as their share if they do not vary.
    """
    x = torch.log(spread.double().flatten().clamp_min(1e-6))
    middle, scale = x.mean(), x.std().clamp_min(1e-6) if len(x) > 1 else x.new_tensor(1.0)
    features = torch.stack([torch.ones_like(x), (x - middle) / scale], -1)
    target, weights = near.double().flatten(), x.new_zeros(2)
    ridge = 1e-3 * torch.eye(2, dtype=x.dtype, device=x.device)  # keeps a set without a single miss from infinity
    for _ in range(steps):
        sure = torch.sigmoid(features @ weights)
        slope = features.T @ (target - sure) - ridge @ weights
        curve = (features * (sure * (1 - sure))[:, None]).T @ features + ridge
        weights = weights + torch.linalg.solve(curve, slope).clamp(-3, 3)
    a, b = (weights[0] - weights[1] * middle / scale).item(), (weights[1] / scale).item()
    return a, b


def reliability(sure: Tensor, near: Tensor, bins: int = 10) -> list[tuple[float, float, int]]:
    """Points sorted by how sure they are and cut into bins of as many: mean confidence, share that is near, count."""
    order = sure.flatten().argsort()
    parts = zip(sure.flatten()[order].chunk(bins), near.flatten()[order].chunk(bins), strict=True)
    return [(said.mean().item(), true.float().mean().item(), len(said)) for said, true in parts]
