"""What happens to a batch on its device, GPU or CPU: the one resampling, and what training changes in pixels.

An augmentation is called as `step(images, draws)`: images (B, C, h, w) in [0, 1], draws (B, step.draws, 2), each as a
uniform number in [0, 1) and, independent of it, as a standard normal one. Nothing else is random, so a face's pixels
are a function of its draws alone, whatever batch, worker or device it is in.
"""

from __future__ import annotations

import math
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # what OpenCV's and JPEG's gray is made of


class Augmentation(Protocol):
    """What all of them are. `active` is false for one that changes nothing, `colour` true for one that needs RGB."""

    draws: int

    @property
    def active(self) -> bool: ...

    @property
    def colour(self) -> bool: ...

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor: ...


def resample(canvases: Tensor, affines: Tensor, size: tuple[int, int]) -> Tensor:
    """The crops of canvases, bilinear, black outside: what `fkp.geometry.warp` does, for a batch.

    On a CPU it is done by OpenCV, as in prediction, which is a little quicker there; the two agree to a gray level.

    Args:
        canvases: (B, C, H, W) uint8.
        affines: (B, 2, 3) CROP -> canvas.
        size: width, height of the crops.

    Returns:
        (B, C, h, w), 0 … 255: uint8 from a CPU, float32 from a GPU.
    """
    if canvases.device.type == "cpu":
        return _by_opencv(canvases.numpy(), affines.double().numpy(), size)
    return _by_torch(canvases, affines, size)


def _by_torch(canvases: Tensor, affines: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = canvases.shape[2:]
    # grid_sample's coordinates run from -1 to 1 over the edges of the pixels.
    scale = affines.new_tensor([2 / width, 2 / height])
    linear, offset = affines[:, :, :2] * scale[:, None], (affines[:, :, 2] + 0.5) * scale - 1
    x = torch.arange(size[0], device=affines.device, dtype=affines.dtype)
    y = torch.arange(size[1], device=affines.device, dtype=affines.dtype)[:, None]
    grid = affines.new_empty(len(canvases), size[1], size[0], 2)
    for axis in (0, 1):
        rows = linear[:, axis, 1, None, None] * y + offset[:, axis, None, None]
        torch.add(rows, linear[:, axis, 0, None, None] * x, out=grid[..., axis])
    return F.grid_sample(canvases.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _by_opencv(canvases: np.ndarray, affines: np.ndarray, size: tuple[int, int]) -> Tensor:
    crops = np.empty((*canvases.shape[:2], size[1], size[0]), np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for canvas, affine, crop in zip(canvases, affines, crops, strict=True):
        for channel, part in zip(canvas, crop, strict=True):
            cv2.warpAffine(channel, affine, size, dst=part, flags=flags, borderMode=cv2.BORDER_CONSTANT)
    return torch.from_numpy(crops)


def to_gray(images: Tensor) -> Tensor:
    """(B, 3, h, w) RGB, or (B, 1, h, w), to (B, 1, h, w)."""
    if images.shape[1] == 1:
        return images
    return (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


class _Step:
    """An augmentation that works on gray and RGB alike."""

    colour = False


class Colour(_Step):
    """Another light's colour: a gain for each channel. For a gray network the gray is then mixed of other shares.

    Args:
        gain: standard deviation of the log of each channel's gain.
    """

    draws = 3

    def __init__(self, gain: float = 0.0):
        self.gain, self.active, self.colour = gain, gain > 0, gain > 0

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        return images * torch.exp(self.gain * draws[:, :, 1])[:, :, None, None]


class Light(_Step):
    """Gamma, contrast, brightness, and light from one side.

    Args:
        gain: standard deviation of the log of the contrast.
        offset: standard deviation of the brightness.
        gamma: standard deviation of the log of the exponent.
        side: standard deviation of what a side light adds at one edge and takes away at the other.
    """

    draws = 5

    def __init__(self, gain: float = 0.0, offset: float = 0.0, gamma: float = 0.0, side: float = 0.0):
        self.gain, self.offset, self.gamma, self.side = gain, offset, gamma, side
        self.active = any((gain, offset, gamma, side))

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        gain, offset, gamma, side = (draws[:, i, 1, None, None, None] for i in range(4))
        if self.gamma:
            images = images.clamp(0, 1) ** torch.exp(self.gamma * gamma)
        images = torch.addcmul(self.offset * offset, images, torch.exp(self.gain * gain))
        if self.side:
            angle = 2 * math.pi * draws[:, 4, 0, None, None, None]
            x, y = _axes(images)
            images = images + self.side * side * (torch.cos(angle) * x + torch.sin(angle) * y)
        return images


class Blur(_Step):
    """Out of focus, or from far away: a Gaussian.

    Args:
        share: of the faces that are blurred.
        deviation: of the widest Gaussian, CROP pixels.
    """

    draws = 2

    def __init__(self, share: float = 0.0, deviation: float = 2.0):
        self.share, self.deviation, self.active = share, deviation, share > 0

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        chosen = (draws[:, 0, 0] < self.share).nonzero().flatten()
        if not len(chosen):
            return images
        part = images[chosen]
        faces, channels, height, width = part.shape
        reach = math.ceil(2.5 * self.deviation)
        taps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
        deviation = (self.deviation * draws[chosen, 1, 0]).clamp_min(1e-3)[:, None]
        kernel = torch.exp(-((taps / deviation) ** 2) / 2)
        kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
        rows = part.reshape(1, -1, height, width)
        rows = F.conv2d(F.pad(rows, (reach, reach, 0, 0), "replicate"), kernel[:, None, None, :], groups=len(kernel))
        rows = F.conv2d(F.pad(rows, (0, 0, reach, reach), "replicate"), kernel[:, None, :, None], groups=len(kernel))
        return images.index_copy(0, chosen, rows.view(faces, channels, height, width))


class Occlusion(_Step):
    """Something before the face: a turned rectangle of one brightness.

    Args:
        share: of the faces that are occluded.
        side: of the longest rectangle, in crops' sides.
    """

    draws = 6

    def __init__(self, share: float = 0.0, side: float = 0.5):
        self.share, self.side, self.active = share, side, share > 0

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        drawn = draws[:, 0, 0] < self.share
        centre_x, centre_y, long, wide, angle = (draws[:, i, 0, None, None, None] for i in range(1, 6))
        x, y = _axes(images)  # from -1 to 1, so half a side is the side in these units
        x, y = x - (2 * centre_x - 1), y - (2 * centre_y - 1)
        cos, sin = torch.cos(math.pi * angle), torch.sin(math.pi * angle)
        inside = ((cos * x + sin * y).abs() < self.side * long) & ((cos * y - sin * x).abs() < self.side * long * wide)
        inside &= drawn[:, None, None, None]
        level = torch.sigmoid(draws[:, 1, 1])[:, None, None, None]
        return torch.where(inside, level, images)


class Noise(_Step):
    """A sensor's grain.

    Args:
        deviation: each face's noise has up to this standard deviation.
    """

    draws = 2
    LENGTH = 1 << 20  # of one stretch of noise, from which every face takes a piece: the same numbers on every device

    def __init__(self, deviation: float = 0.0):
        self.deviation, self.active, self.stretch = deviation, deviation > 0, torch.empty(0)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        count = images[0].numel()
        if self.stretch.device != images.device or len(self.stretch) < count + self.LENGTH:
            numbers = torch.randn(count + self.LENGTH, generator=torch.Generator().manual_seed(0))
            self.stretch = numbers.to(images.device)
        begin = (draws[:, 0, 0] * self.LENGTH).long()
        grain = self.stretch.unfold(0, count, 1)[begin].view_as(images)
        return torch.addcmul(images, grain, self.deviation * draws[:, 1, 0, None, None, None])


class Compression(_Step):
    """What JPEG does to brightness: cosines of 8 x 8 blocks, rounded (ITU-T T.81, tables of annex K.1).

    Args:
        share: of the faces that are compressed.
        quality: lowest and highest, 1 to 100, as the Independent JPEG Group counts.
    """

    draws = 2
    TABLE = (
        (16, 11, 10, 16, 24, 40, 51, 61),
        (12, 12, 14, 19, 26, 58, 60, 55),
        (14, 13, 16, 24, 40, 57, 69, 56),
        (14, 17, 22, 29, 51, 87, 80, 62),
        (18, 22, 37, 56, 68, 109, 103, 77),
        (24, 35, 55, 64, 81, 104, 113, 92),
        (49, 64, 78, 87, 103, 121, 120, 101),
        (72, 92, 95, 98, 112, 100, 103, 99),
    )

    def __init__(self, share: float = 0.0, quality: tuple[float, float] = (20, 80)):
        self.share, self.quality, self.active = share, quality, share > 0

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        chosen = (draws[:, 0, 0] < self.share).nonzero().flatten()
        if not len(chosen):
            return images
        part = images[chosen].clamp(0, 1) * 255 - 128
        height, width = part.shape[2:]
        part = F.pad(part, (0, -width % 8, 0, -height % 8), "replicate")
        low, high = self.quality
        quality = low + (high - low) * draws[chosen, 1, 0]
        scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)[:, None, None, None, None, None]
        step = (images.new_tensor(self.TABLE) * scale).clamp_min(1)
        k = torch.arange(8, device=images.device, dtype=images.dtype)
        cosines = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) / 2
        cosines[0] /= math.sqrt(2)
        blocks = part.unfold(2, 8, 8).unfold(3, 8, 8)
        waves = cosines @ blocks @ cosines.T
        blocks = cosines.T @ ((waves / step).round() * step) @ cosines
        part = blocks.transpose(3, 4).reshape(part.shape)[:, :, :height, :width]
        return images.index_copy(0, chosen, (part + 128) / 255)


def _axes(images: Tensor) -> tuple[Tensor, Tensor]:
    """x (1, 1, 1, w) and y (1, 1, h, 1) of the pixels, from -1 to 1."""
    height, width = images.shape[2:]
    x = torch.linspace(-1, 1, width, device=images.device, dtype=images.dtype)
    y = torch.linspace(-1, 1, height, device=images.device, dtype=images.dtype)
    return x.view(1, 1, 1, -1), y.view(1, 1, -1, 1)
