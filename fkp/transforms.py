"""From a labelled face in a picture to the network's crop: every geometric step is part of ONE affine per face.

A transform is called as `transform(crops, draws)` on a batch of faces. With random draws it is training; with None it
takes the middle of what it could draw, so the very same steps crop for validation, evaluation and prediction.
`Normalize` and `ToTensor` then turn the pixels of the crop into the network's input.
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
        extents: (B, 2) width, height of the whole pictures, IMAGE pixels.
        points: (B, K, 2) labels, IMAGE pixels; None in prediction.
        partners: (K,) the markup's `flip`, where a labelled face may be mirrored.
        tilts: (B,) how far each face is known to be turned, degrees clockwise; None for upright.
        to_crop: (B, 2, 3), IMAGE -> CROP, what the transforms so far make; `sizes` (B, 2) the width, height it fills.
    """

    boxes: np.ndarray
    extents: np.ndarray
    points: np.ndarray | None = None
    partners: np.ndarray | None = None
    tilts: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.sizes = np.asarray(self.extents, float)
        self.to_crop = np.repeat(IDENTITY[None], len(self.boxes), 0)

    def move(self, affines: Array, sizes: np.ndarray) -> Crops:
        """Append a geometric step, an affine (B, 2, 3) or (2, 3)."""
        self.to_crop, self.sizes = compose(self.to_crop, affines), sizes
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of all crops.

        Raises:
            ValueError: they differ, so they make no batch.
        """
        sizes = np.round(self.sizes).astype(int)
        if len(sizes) and (sizes != sizes[0]).any():
            raise ValueError("the transforms leave crops of different sizes; end with a RandomCrop")
        return (int(sizes[0, 0]), int(sizes[0, 1])) if len(sizes) else (1, 1)

    def crop_points(self) -> np.ndarray:
        """(B, K, 2) labels in CROP space."""
        assert self.points is not None
        return apply(self.to_crop, self.points)


class Transform(Protocol):
    """What all geometric transforms are.

    `draws` says how many random draws a face needs; they come as (B, draws, 2): each as a uniform number in [0, 1)
    and, independent of it, as a standard normal one.
    """

    draws: int

    def __call__(self, crops: Crops, draws: np.ndarray | None = None) -> Crops: ...


def run(transforms: Sequence[Transform], crops: Crops, draws: np.ndarray | None = None) -> Crops:
    """Apply transforms in order, each with its own of the draws (B, n, 2)."""
    start = 0
    for transform in transforms:
        crops = transform(crops, None if draws is None else draws[:, start : start + transform.draws])
        start += transform.draws
    return crops


class FaceCrop:
    """A square round the face box, turned with the face if its tilt is known; in training shifted, scaled and turned as
    detectors' boxes are, and stretched, as no two heads are alike.

    Args:
        scale: the square's side, in face-box sides.
        lower: how far its centre lies below the box's, in face-box sides (a Haar box sits high on the face).
        shift: standard deviation of the centre in training, in face-box sides.
        zoom: standard deviation of the log of the side in training.
        turn: standard deviation of the rotation in training, degrees.
        tail: share of training faces for which these three deviations are three times as wide: a detector's rare bad
            box, a head on its side.
        stretch: standard deviation of the log of how much longer faces get in a random direction in training.
        whole: labelled faces keep their whole picture, as the published system trained; the square is for prediction
            alone, where it should frame a face as the median training picture does.
    """

    draws = 5

    def __init__(
        self,
        scale: float,
        lower: float = 0.0,
        shift: float = 0.0,
        zoom: float = 0.0,
        turn: float = 0.0,
        tail: float = 0.0,
        stretch: float = 0.0,
        whole: bool = False,
    ):
        self.scale, self.lower, self.shift, self.zoom, self.turn = scale, lower, shift, zoom, turn
        self.tail, self.stretch, self.whole = tail, stretch, whole

    def __call__(self, crops: Crops, draws: np.ndarray | None = None) -> Crops:
        if self.whole and crops.points is not None:
            return crops
        x, y, side = centre_and_side(crops.boxes)
        tilts = np.zeros_like(x) if crops.tilts is None else np.asarray(crops.tilts, float)
        # Lower is towards the chin, wherever that is.
        x, y = x - np.sin(np.deg2rad(tilts)) * self.lower * side, y + np.cos(np.deg2rad(tilts)) * self.lower * side
        wanted, turned = self.scale * side, rotation(-tilts, np.stack([x, y], -1))
        if draws is not None:
            # The uniform half of a draw is free to say which faces are in the tail.
            dx, dy, zoom, turn = draws[:, :4, 1].T * np.where(draws[:, 0, 0] < self.tail, 3.0, 1.0)
            x, y = x + dx * self.shift * side, y + dy * self.shift * side
            wanted = wanted * np.exp(zoom * self.zoom)
            centre = np.stack([x, y], -1)
            turned = rotation(turn * self.turn - tilts, centre)
            if self.stretch:
                longer = np.exp(self.stretch * draws[:, 4, 1])
                turned = compose(turned, stretching(longer, 180 * draws[:, 4, 0], centre))
        # Edges lie half a pixel from centres: the square's left edge becomes the edge of the first pixel.
        corner = translation(wanted / 2 - x - 0.5, wanted / 2 - y - 0.5)
        return crops.move(compose(turned, corner), np.stack([wanted, wanted], -1))


class Rescale:
    """Make the shorter side `size` pixels long."""

    draws = 0

    def __init__(self, size: int):
        self.size = size

    def __call__(self, crops: Crops, draws: np.ndarray | None = None) -> Crops:
        factor = self.size / crops.sizes.min(1)
        return crops.move(rescaling(factor), crops.sizes * factor[:, None])


class RandomCrop:
    """A square of `size` pixels: anywhere in training, else from the middle."""

    draws = 2

    def __init__(self, size: int):
        self.size = size

    def __call__(self, crops: Crops, draws: np.ndarray | None = None) -> Crops:
        spare = np.maximum(crops.sizes - self.size, 0)
        # Whole pixels, as the published crop, which is a slice of an array.
        left, top = np.round(spare * (0.5 if draws is None else draws[..., 0])).T
        return crops.move(translation(-left, -top), np.full_like(crops.sizes, self.size))


class RandomFlip:
    """Some training faces as in a mirror, left and right points swapped.

    Args:
        share: of the faces that are mirrored.
    """

    draws = 1

    def __init__(self, share: float = 0.5):
        self.share = share

    def __call__(self, crops: Crops, draws: np.ndarray | None = None) -> Crops:
        if draws is None or crops.points is None or not self.share:
            return crops
        mirrored = draws[:, 0, 0] < self.share
        crops.points = np.where(mirrored[:, None, None], crops.points[:, crops.partners], crops.points)
        affines = np.where(mirrored[:, None, None], mirroring(crops.sizes[:, 0]), IDENTITY)
        return crops.move(affines, crops.sizes)


class ToTensor:
    """Crops (B, h, w) or (B, h, w, C) uint8 to a tensor (B, C, h, w) of the same values."""

    def __call__(self, pixels: np.ndarray) -> Tensor:
        import torch  # here, as prediction without torch needs the geometry above

        channels = pixels[..., None] if pixels.ndim == 3 else pixels
        return torch.from_numpy(np.ascontiguousarray(channels.transpose(0, 3, 1, 2)))


class Normalize:
    """Pixels from 0 … 255, uint8 or float, to float32 in [0, 1]."""

    def __call__(self, pixels: Tensor) -> Tensor:
        return pixels * (1 / 255)
