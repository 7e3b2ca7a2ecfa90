"""Pixel augmentation of a batch, on its device; and the one resampling from image to crop.

An augmentation is called as `step(images, draws)`:

    images  (B, C, h, w) in [0, 1]
    draws   (B, step.draws, 2), each a uniform number in [0, 1) and an independent standard normal
            number

An augmentation draws no random numbers itself, so the pixels of a face are a function of its draws
alone, in whatever batch, worker process or device it is.
"""

from __future__ import annotations

import math
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # the gray of OpenCV and of JPEG


class Augmentation(Protocol):
    """The interface of all augmentations.

    `active` is false for one that changes nothing; `colour` is true for one that needs RGB.
    """

    draws: int

    @property
    def active(self) -> bool: ...

    @property
    def colour(self) -> bool: ...

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor: ...


def resample(canvases: Tensor, affines: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample cached crops to the network's crops: bilinear, black outside.

    This is `fkp.geometry.warp` for a batch. On a CPU, OpenCV does it, as in prediction, and is a
    little faster there; on a GPU, torch does. The two agree to one gray level.

    Args:
        canvases: (B, C, H, W) uint8, the cached crops.
        affines: (B, 2, 3), CROP -> cached crop.
        size: width, height of the crops.

    Returns:
        (B, C, h, w), 0 … 255: uint8 from a CPU, float32 from a GPU.
    """
    if canvases.device.type == "cpu":
        return _by_opencv(canvases.numpy(), affines.double().numpy(), size)
    return _by_torch(canvases, affines, size)


def _by_torch(canvases: Tensor, affines: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = canvases.shape[2:]

    # The coordinates of grid_sample run from -1 to 1 over the edges of the pixels.
    scale = affines.new_tensor([2 / width, 2 / height])
    linear, offset = affines[:, :, :2] * scale[:, None], (affines[:, :, 2] + 0.5) * scale - 1
    x = torch.arange(size[0], device=affines.device, dtype=affines.dtype)
    y = torch.arange(size[1], device=affines.device, dtype=affines.dtype)[:, None]
    grid = affines.new_empty(len(canvases), size[1], size[0], 2)
    for axis in (0, 1):
        rows = linear[:, axis, 1, None, None] * y + offset[:, axis, None, None]
        torch.add(rows, linear[:, axis, 0, None, None] * x, out=grid[..., axis])
    return F.grid_sample(
        canvases.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )


def _by_opencv(canvases: np.ndarray, affines: np.ndarray, size: tuple[int, int]) -> Tensor:
    crops = np.empty((*canvases.shape[:2], size[1], size[0]), np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for canvas, affine, crop in zip(canvases, affines, crops, strict=True):
        for channel, part in zip(canvas, crop, strict=True):
            cv2.warpAffine(
                channel, affine, size, dst=part, flags=flags, borderMode=cv2.BORDER_CONSTANT
            )
    return torch.from_numpy(crops)


def to_gray(images: Tensor) -> Tensor:
    """Convert RGB (B, 3, h, w) to gray (B, 1, h, w); gray images stay as they are."""
    if images.shape[1] == 1:
        return images
    return (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


class _Step:
    """An augmentation of gray and RGB images."""

    colour = False


class Colour(_Step):
    """Change the colour of the light: scale each channel.

    For a gray network, the gray is mixed after this step.

    Args:
        gain: standard deviation of the logarithm of each channel's gain.
    """

    draws = 3

    def __init__(self, gain: float = 0.0):
        self.gain, self.active, self.colour = gain, gain > 0, gain > 0

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        return images * torch.exp(self.gain * draws[:, :, 1])[:, :, None, None]


class Light(_Step):
    """Change gamma, contrast and brightness, and add light from one side.

    Args:
        gain: standard deviation of the logarithm of the contrast.
        offset: standard deviation of the brightness.
        gamma: standard deviation of the logarithm of the exponent.
        side: standard deviation of what a side light adds at one edge and subtracts at the other.
    """

    draws = 5

    def __init__(
        self, gain: float = 0.0, offset: float = 0.0, gamma: float = 0.0, side: float = 0.0
    ):
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
    """Blur with a Gaussian, as a lens out of focus or a distant face does.

    Args:
        p: probability that a face is blurred.
        sigma: largest standard deviation of the Gaussian, CROP pixels.
    """

    draws = 2

    def __init__(self, p: float = 0.0, sigma: float = 2.0):
        self.p, self.sigma, self.active = p, sigma, p > 0

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        chosen = (draws[:, 0, 0] < self.p).nonzero().flatten()
        if not len(chosen):
            return images
        faces = images[chosen]
        count, channels, height, width = faces.shape

        # One kernel for each face, repeated for its channels: (count * channels, taps).
        radius = math.ceil(2.5 * self.sigma)
        taps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
        sigma = (self.sigma * draws[chosen, 1, 0]).clamp_min(1e-3)[:, None]
        kernel = torch.exp(-((taps / sigma) ** 2) / 2)
        kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)

        # A Gaussian is separable: rows, then columns, as grouped convolutions.
        rows = faces.reshape(1, -1, height, width)
        padded = F.pad(rows, (radius, radius, 0, 0), "replicate")
        rows = F.conv2d(padded, kernel[:, None, None, :], groups=len(kernel))
        padded = F.pad(rows, (0, 0, radius, radius), "replicate")
        rows = F.conv2d(padded, kernel[:, None, :, None], groups=len(kernel))
        return images.index_copy(0, chosen, rows.view(count, channels, height, width))


class Occlusion(_Step):
    """Cover a part of the face with a rotated rectangle of one gray level.

    Args:
        p: probability that a face is occluded.
        side: longest side of the rectangle, in sides of the crop.
    """

    draws = 6

    def __init__(self, p: float = 0.0, side: float = 0.5):
        self.p, self.side, self.active = p, side, p > 0

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        chosen = draws[:, 0, 0] < self.p
        centre_x, centre_y, length, ratio, angle = (
            draws[:, i, 0, None, None, None] for i in range(1, 6)
        )

        # Pixels in the rectangle's own axes; they run from -1 to 1, so `side` is half a side.
        x, y = _axes(images)
        x, y = x - (2 * centre_x - 1), y - (2 * centre_y - 1)
        cos, sin = torch.cos(math.pi * angle), torch.sin(math.pi * angle)
        along, across = (cos * x + sin * y).abs(), (cos * y - sin * x).abs()

        inside = (along < self.side * length) & (across < self.side * length * ratio)
        inside &= chosen[:, None, None, None]
        level = torch.sigmoid(draws[:, 1, 1])[:, None, None, None]
        return torch.where(inside, level, images)


class Noise(_Step):
    """Add Gaussian noise, as a sensor does.

    Args:
        std: largest standard deviation of the noise.
    """

    draws = 2
    # Length of one stretch of noise, of which every face takes a part: generated on the CPU, it is
    # the same on every device.
    LENGTH = 1 << 20

    def __init__(self, std: float = 0.0):
        self.std, self.active, self.stretch = std, std > 0, torch.empty(0)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        count = images[0].numel()
        if self.stretch.device != images.device or len(self.stretch) < count + self.LENGTH:
            generator = torch.Generator().manual_seed(0)
            self.stretch = torch.randn(count + self.LENGTH, generator=generator).to(images.device)

        begin = (draws[:, 0, 0] * self.LENGTH).long()
        noise = self.stretch.unfold(0, count, 1)[begin].view_as(images)
        return torch.addcmul(images, noise, self.std * draws[:, 1, 0, None, None, None])


class Compression(_Step):
    """Quantise as JPEG does: the cosine transform of 8 x 8 blocks, rounded.

    Source: ITU-T T.81, the luminance table of annex K.1.

    Args:
        p: probability that a face is compressed.
        quality: lowest and highest, 1 to 100, on the scale of the Independent JPEG Group.
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

    def __init__(self, p: float = 0.0, quality: tuple[float, float] = (20, 80)):
        self.p, self.quality, self.active = p, quality, p > 0

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        chosen = (draws[:, 0, 0] < self.p).nonzero().flatten()
        if not len(chosen):
            return images

        # Gray levels around zero, padded to whole blocks.
        faces = images[chosen].clamp(0, 1) * 255 - 128
        height, width = faces.shape[2:]
        faces = F.pad(faces, (0, -width % 8, 0, -height % 8), "replicate")

        # Quantisation step of each coefficient, from the quality of each face.
        low, high = self.quality
        quality = low + (high - low) * draws[chosen, 1, 0]
        scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
        scale = scale[:, None, None, None, None, None]
        step = (images.new_tensor(self.TABLE) * scale).clamp_min(1)

        # Cosine transform of each block, rounded, and back.
        k = torch.arange(8, device=images.device, dtype=images.dtype)
        cosines = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) / 2
        cosines[0] /= math.sqrt(2)
        blocks = faces.unfold(2, 8, 8).unfold(3, 8, 8)  # (B, C, rows, columns, 8, 8)
        coefficients = cosines @ blocks @ cosines.T
        blocks = cosines.T @ ((coefficients / step).round() * step) @ cosines

        faces = blocks.transpose(3, 4).reshape(faces.shape)[:, :, :height, :width]
        return images.index_copy(0, chosen, (faces + 128) / 255)


def _axes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return x (1, 1, 1, w) and y (1, 1, h, 1) of the pixels, from -1 to 1."""
    height, width = images.shape[2:]
    x = torch.linspace(-1, 1, width, device=images.device, dtype=images.dtype)
    y = torch.linspace(-1, 1, height, device=images.device, dtype=images.dtype)
    return x.view(1, 1, 1, -1), y.view(1, 1, -1, 1)
