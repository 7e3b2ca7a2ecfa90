"""Calibrate confidence: from the standard deviation of a point's heat map to a probability."""

from __future__ import annotations

import torch
from torch import Tensor

# The radius that confidence is about, as a fraction of the outer-eye distance: the 5 % of PCK@5.
WITHIN = 0.05
Calibration = tuple[float, float]


def confidence(spread: Tensor, calibration: Calibration) -> Tensor:
    """Compute the probability that a point lies within 5 % of its label.

    confidence = 1 / (1 + exp(-a - b log spread))

    Args:
        spread: (...), positive: the standard deviation that `fkp.codecs` reads from a heat map.
        calibration: a and b, from `calibrate`.

    Returns:
        (...) in [0, 1].
    """
    a, b = calibration
    return torch.sigmoid(a + b * torch.log(spread.clamp_min(1e-6)))


def calibrate(spread: Tensor, within: Tensor, steps: int = 30) -> Calibration:
    """Fit a and b of `confidence` by logistic regression, with Newton's method.

    Source: Platt, "Probabilistic Outputs for Support Vector Machines" (1999).

    Args:
        spread: (N,), positive.
        within: (N,) bool: whether each point lies within 5 % of its label.
        steps: of Newton's method; fewer than ten suffice in practice.

    Returns:
        a, b. Where all spreads are equal, confidence is the fraction of points within 5 %.
    """
    # Standardise the logarithms, so that Newton's method converges for any unit of spread.
    x = torch.log(spread.double().flatten().clamp_min(1e-6))
    mean, std = x.mean(), x.std().clamp_min(1e-6) if len(x) > 1 else x.new_tensor(1.0)
    features = torch.stack([torch.ones_like(x), (x - mean) / std], -1)  # (N, 2)
    target, weights = within.double().flatten(), x.new_zeros(2)

    # The ridge keeps the weights finite where no point, or every point, is within 5 %.
    ridge = 1e-3 * torch.eye(2, dtype=x.dtype, device=x.device)
    for _ in range(steps):
        predicted = torch.sigmoid(features @ weights)
        gradient = features.T @ (target - predicted) - ridge @ weights
        hessian = (features * (predicted * (1 - predicted))[:, None]).T @ features + ridge
        weights = weights + torch.linalg.solve(hessian, gradient).clamp(-3, 3)

    # Back to the unstandardised logarithm.
    return (weights[0] - weights[1] * mean / std).item(), (weights[1] / std).item()


def reliability(
    confidence: Tensor, within: Tensor, bins: int = 10
) -> list[tuple[float, float, int]]:
    """Compare confidence with what came true, in bins of equal size.

    Args:
        confidence: (N,) in [0, 1].
        within: (N,) bool.
        bins: how many.

    Returns:
        for each bin its mean confidence, the fraction of its points within 5 %, and their number.
    """
    order = confidence.flatten().argsort()
    binned = zip(
        confidence.flatten()[order].chunk(bins), within.flatten()[order].chunk(bins), strict=True
    )
    return [(said.mean().item(), true.float().mean().item(), len(said)) for said, true in binned]
