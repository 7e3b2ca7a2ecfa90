"""Losses of raw output and encoded label, both in a codec's units; torch.nn has L1, L2 (MSE), smooth L1 and Huber."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class WingLoss(nn.Module):
    """w ln(1 + |x| / e) for errors below w, |x| - C beyond: a logarithm lets small and middling errors pull harder.

    Feng et al., "Wing Loss for Robust Facial Landmark Localisation with Convolutional Neural Networks" (2018).

    Args:
        width: w, where the logarithm ends, in the codec's units.
        curvature: e, how sharply it bends at nought, in the codec's units.
    """

    def __init__(self, width: float = 10.0, curvature: float = 2.0):
        super().__init__()
        if width <= 0 or curvature <= 0:
            raise ValueError(f"width and curvature must be positive, not {width} and {curvature}")
        self.width, self.curvature = width, curvature
        self.gap = width - width * math.log(1 + width / curvature)  # C: makes both pieces meet

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Tensors of one shape to their mean loss; 0 for empty ones."""
        error = (output - target).abs()
        losses = torch.where(error < self.width, self.width * torch.log1p(error / self.curvature), error - self.gap)
        return losses.sum() / max(1, losses.numel())
