"""Crop geometry: each face goes from its image to the network's crop by ONE affine.

A transform is called as `transform(crops, draws)` on a batch of faces and appends its step to the
affines. Random draws make it a training augmentation; with `draws=None` it takes the middle of what
it could draw, so the same transforms crop for validation, evaluation and prediction.

`ToTensor` and `Normalize` then turn the pixels of the crop into the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fkp.geometry import (
    IDENTITY,
    Array,
    apply,
    centre_and_side,
    compose,
    mirroring,
    rescaling,
    rotation,
    stretching,
    translation,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Crops:
    """B faces on their way to the network's input.

    Args:
        boxes: (B, 4) face boxes, IMAGE pixels.
        extents: (B, 2) width and height of the images, pixels.
        points: (B, K, 2) labels, IMAGE pixels; None in prediction.
        flip_indices: (K,) of the markup, where faces may be flipped.
        rolls: (B,) known rotation of each face in the image plane, degrees clockwise; None for
            upright faces.

    Attributes:
        to_crop: (B, 2, 3), IMAGE -> CROP, composed of all transforms so far.
        sizes: (B, 2) width and height of the crops so far.
    """

    boxes: np.ndarray
    extents: np.ndarray
    points: np.ndarray | None = None
    flip_indices: np.ndarray | None = None
    rolls: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.sizes = np.asarray(self.extents, float)
        self.to_crop = np.repeat(IDENTITY[None], len(self.boxes), 0)

    def move(self, affines: Array, sizes: np.ndarray) -> Crops:
        """Append a geometric step, an affine (B, 2, 3) or (2, 3), which leads to these sizes."""
        self.to_crop, self.sizes = compose(self.to_crop, affines), sizes
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of all crops.

        Raises:
            ValueError: the crops differ in size, so they make no batch.
        """
        sizes = np.round(self.sizes).astype(int)
        if len(sizes) and (sizes != sizes[0]).any():
            raise ValueError("the transforms leave crops of different sizes; end with a RandomCrop")
        return (int(sizes[0, 0]), int(sizes[0, 1])) if len(sizes) else (1, 1)

    def crop_points(self) -> np.ndarray:
        """Return the labels (B, K, 2) in CROP pixels."""
        assert self.points is not None
        return apply(self.to_crop, self.points)


class Transform(Protocol):
    """The interface of all geometric transforms.

    `draws` is the number of random draws per face; they come as (B, draws, 2): each a uniform
    number in [0, 1) and an independent standard normal number.
    """

    draws: int

    def __call__(self, crops: Crops, draws: np.ndarray | None = None) -> Crops: ...


def run(transforms: Sequence[Transform], crops: Crops, draws: np.ndarray | None = None) -> Crops:
    """Apply transforms in order, each with its own part of the draws (B, n, 2)."""
    start = 0
    for transform in transforms:
        own = None if draws is None else draws[:, start : start + transform.draws]
        crops = transform(crops, own)
        start += transform.draws
    return crops


class FaceCrop:
    """Crop a square around the face box, upright if the face's roll is known.

    In training the square is shifted, scaled and rotated as the boxes of detectors are, and the
    face stretched, as faces differ in proportion.

    Args:
        scale: side of the square, in sides of the face box.
        offset_y: how far the square's centre lies below the box's, in sides of the face box
            (a Haar box sits high on the face).
        shift: standard deviation of the centre in training, in sides of the face box.
        zoom: standard deviation of the logarithm of the side in training.
        rotation: standard deviation of the rotation in training, degrees.
        tail_p: probability that these three standard deviations are three times as large: the rare
            bad box, the head on its side.
        stretch: standard deviation of the logarithm of the stretch, in a random direction, in
            training.
        full_image: keep the whole image of labelled faces, as the published system trained. The
            square then serves prediction alone, where it should frame a face as the median
            training image does.
    """

    draws = 5

    def __init__(
        self,
        scale: float,
        offset_y: float = 0.0,
        shift: float = 0.0,
        zoom: float = 0.0,
        rotation: float = 0.0,
        tail_p: float = 0.0,
        stretch: float = 0.0,
        full_image: bool = False,
    ):
        self.scale, self.offset_y = scale, offset_y
        self.shift, self.zoom, self.rotation = shift, zoom, rotation
        self.tail_p, self.stretch, self.full_image = tail_p, stretch, full_image

    def __call__(self, crops: Crops, draws: np.ndarray | None = None) -> Crops:
        if self.full_image and crops.points is not None:
            return crops

        # The square: its centre lies towards the chin from the box's, wherever the chin is.
        x, y, box_side = centre_and_side(crops.boxes)
        rolls = np.zeros_like(x) if crops.rolls is None else np.asarray(crops.rolls, float)
        down = self.offset_y * box_side
        x, y = x - np.sin(np.deg2rad(rolls)) * down, y + np.cos(np.deg2rad(rolls)) * down
        side, angle = self.scale * box_side, -rolls

        if draws is not None:
            # The tail: the uniform half of the first draw says which faces are in it.
            normal = draws[:, :4, 1].T * np.where(draws[:, 0, 0] < self.tail_p, 3.0, 1.0)
            dx, dy, zoom, turn = normal
            x, y = x + dx * self.shift * box_side, y + dy * self.shift * box_side
            side = side * np.exp(zoom * self.zoom)
            angle = turn * self.rotation - rolls

        centre = np.stack([x, y], -1)
        upright = rotation(angle, centre)
        if draws is not None and self.stretch:
            factor = np.exp(self.stretch * draws[:, 4, 1])
            upright = compose(upright, stretching(factor, 180 * draws[:, 4, 0], centre))

        # Edges lie half a pixel from centres: the left edge is that of the first pixel.
        corner = translation(side / 2 - x - 0.5, side / 2 - y - 0.5)
        return crops.move(compose(upright, corner), np.stack([side, side], -1))


class Rescale:
    """Resize so that the shorter side has `size` pixels."""

    draws = 0

    def __init__(self, size: int):
        self.size = size

    def __call__(self, crops: Crops, draws: np.ndarray | None = None) -> Crops:
        factor = self.size / crops.sizes.min(1)
        return crops.move(rescaling(factor), crops.sizes * factor[:, None])


class RandomCrop:
    """Crop a square of `size` pixels: anywhere in training, else from the middle."""

    draws = 2

    def __init__(self, size: int):
        self.size = size

    def __call__(self, crops: Crops, draws: np.ndarray | None = None) -> Crops:
        spare = np.maximum(crops.sizes - self.size, 0)
        # Whole pixels, as in the published system, which slices an array.
        left, top = np.round(spare * (0.5 if draws is None else draws[..., 0])).T
        return crops.move(translation(-left, -top), np.full_like(crops.sizes, self.size))


class RandomFlip:
    """Mirror some training faces, and swap their left and right points.

    Faces of a markup without flip indices are never mirrored.

    Args:
        p: probability that a face is mirrored.
    """

    draws = 1

    def __init__(self, p: float = 0.5):
        self.p = p

    def __call__(self, crops: Crops, draws: np.ndarray | None = None) -> Crops:
        if draws is None or crops.points is None or crops.flip_indices is None or not self.p:
            return crops

        flipped = (draws[:, 0, 0] < self.p)[:, None, None]
        crops.points = np.where(flipped, crops.points[:, crops.flip_indices], crops.points)
        affines = np.where(flipped, mirroring(crops.sizes[:, 0]), IDENTITY)
        return crops.move(affines, crops.sizes)


class ToTensor:
    """Convert crops (B, h, w) or (B, h, w, C) uint8 to a tensor (B, C, h, w) of the same values."""

    def __call__(self, pixels: np.ndarray) -> Tensor:
        import torch  # here: prediction without torch needs the geometry above

        channels = pixels[..., None] if pixels.ndim == 3 else pixels
        return torch.from_numpy(np.ascontiguousarray(channels.transpose(0, 3, 1, 2)))


class Normalize:
    """Scale pixels from 0 … 255, uint8 or float, to float32 in [0, 1]."""

    def __call__(self, pixels: Tensor) -> Tensor:
        import torch

        # Convert a copy, then scale it: on a CPU 1.4 times as fast as a product of two types.
        return pixels.to(torch.float32, copy=True).mul_(1 / 255)
