"""Losses between raw output and encoded label, both in the codec's units.

`torch.nn` has L1, L2 (MSE), smooth L1 and Huber; this module adds what it lacks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class WingLoss(nn.Module):
    """Compute the wing loss: w ln(1 + |x| / e) for |x| < w, and |x| - C beyond.

    The logarithm gives small and medium errors a larger gradient than L1 does.

    Source: Feng et al., "Wing Loss for Robust Facial Landmark Localisation with Convolutional
    Neural Networks" (2018).

    Args:
        width: w, the error at which the logarithm ends, in the codec's units.
        curvature: e, which bounds the gradient near zero, in the codec's units.

    Raises:
        ValueError: width or curvature is not positive.
    """

    def __init__(self, width: float = 10.0, curvature: float = 2.0):
        super().__init__()
        if width <= 0 or curvature <= 0:
            raise ValueError(f"width and curvature must be positive, not {width} and {curvature}")

        self.width, self.curvature = width, curvature
        # C joins the two pieces at |x| = w.
        self.gap = width - width * math.log(1 + width / curvature)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of two tensors of one shape; 0 if they are empty."""
        error = (output - target).abs()
        logarithm = self.width * torch.log1p(error / self.curvature)
        losses = torch.where(error < self.width, logarithm, error - self.gap)
        return losses.sum() / max(1, losses.numel())
