"""From a labelled face in a picture to a network's input: every geometric step is part of ONE affine per sample.

A transform is called as `transform(sample, rng)`. With a random generator it draws (training); with None it takes
the middle of what it could draw, so the very same steps crop for validation, evaluation and prediction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fkp.geometry import (
    IDENTITY,
    apply,
    centre_and_side,
    compose,
    invert,
    rescaling,
    rotation,
    square,
    translation,
    warp,
)
from fkp.markup import load_markup

Rng = np.random.Generator


@dataclass
class Sample:
    """One face on its way to the network.

    Args:
        canvas: uint8 (h, w) or (h, w, 3), the decoded pixels.
        to_canvas: (2, 3), IMAGE -> canvas.
        extent: width, height of the whole picture, IMAGE pixels.
        box: (4,) the face box, IMAGE pixels.
        points: (K, 2) labels, IMAGE pixels; None in prediction.
        to_crop: (2, 3), IMAGE -> CROP, what the transforms so far make; `size` is the width, height it fills.
        pixels: the resampled crop, once a step has asked for it.
    """

    canvas: np.ndarray
    to_canvas: np.ndarray
    extent: tuple[int, int]
    box: np.ndarray
    points: np.ndarray | None = None
    to_crop: np.ndarray = field(default_factory=IDENTITY.copy)
    size: tuple[float, float] = (0.0, 0.0)
    pixels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.size == (0.0, 0.0):
            self.size = (float(self.extent[0]), float(self.extent[1]))

    def move(self, affine: np.ndarray, size: tuple[float, float]) -> Sample:
        """Append a geometric step."""
        if self.pixels is not None:
            raise ValueError("a geometric transform must come before those that change pixels")
        self.to_crop, self.size = compose(self.to_crop, affine), size
        return self

    def crop(self) -> np.ndarray:
        """The CROP pixels: resampled here, once."""
        if self.pixels is None:
            size = (round(self.size[0]), round(self.size[1]))
            self.pixels = warp(self.canvas, compose(invert(self.to_canvas), self.to_crop), size)
        return self.pixels

    def crop_points(self) -> np.ndarray:
        """(K, 2) labels in CROP space."""
        assert self.points is not None
        return apply(self.to_crop, self.points)


class Transform(Protocol):
    """What all transforms are."""

    def __call__(self, sample: Sample, rng: Rng | None = None) -> Sample: ...


def run(transforms: Iterable[Transform], sample: Sample, rng: Rng | None = None) -> Sample:
    """Apply transforms in order."""
    for transform in transforms:
        sample = transform(sample, rng)
    return sample


class FaceCrop:
    """A square round the face box; in training shifted, scaled and turned as detectors' boxes are.

    Args:
        scale: the square's side, in face-box sides.
        lower: how far its centre lies below the box's, in face-box sides (a Haar box sits high on the face).
        shift: standard deviation of the centre in training, in face-box sides.
        zoom: standard deviation of the log of the side in training.
        turn: standard deviation of the rotation in training, degrees.
        whole: labelled faces keep their whole picture, as the published system trained; the square is for prediction
            alone, where it should frame a face as the median training picture does.
    """

    def __init__(
        self,
        scale: float,
        lower: float = 0.0,
        shift: float = 0.0,
        zoom: float = 0.0,
        turn: float = 0.0,
        whole: bool = False,
    ):
        self.scale, self.lower, self.shift, self.zoom, self.turn, self.whole = scale, lower, shift, zoom, turn, whole

    def __call__(self, sample: Sample, rng: Rng | None = None) -> Sample:
        if self.whole and sample.points is not None:
            return sample
        x, y, side = centre_and_side(sample.box)
        y += self.lower * side
        scale, turned = self.scale, IDENTITY
        if rng is not None:
            dx, dy, zoom, turn = rng.standard_normal(4)
            x, y = x + dx * self.shift * side, y + dy * self.shift * side
            scale *= float(np.exp(zoom * self.zoom))
            turned = rotation(turn * self.turn, (x, y))
        left, top, _, _ = square(x, y, side * scale)
        # Edges lie half a pixel from centres: the square's left edge becomes the edge of the first pixel.
        return sample.move(compose(turned, translation(-left - 0.5, -top - 0.5)), (side * scale, side * scale))


class Rescale:
    """Make the shorter side `size` pixels long."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, sample: Sample, rng: Rng | None = None) -> Sample:
        factor = self.size / min(sample.size)
        return sample.move(rescaling(factor), (sample.size[0] * factor, sample.size[1] * factor))


class RandomCrop:
    """A square of `size` pixels: anywhere in training, else from the middle."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, sample: Sample, rng: Rng | None = None) -> Sample:
        spare = np.array(sample.size) - self.size
        part = 0.5 if rng is None else rng.random(2)
        # Whole pixels, as the published crop, which is a slice of an array.
        left, top = np.round(np.maximum(spare, 0) * part)
        return sample.move(translation(-left, -top), (float(self.size), float(self.size)))


class RandomFlip:
    """Some training faces as in a mirror, left and right points swapped.

    Args:
        share: of the faces that are mirrored.
        markup: name of the markup, which knows each point's partner.
    """

    def __init__(self, share: float = 0.5, markup: str = "ibug68"):
        self.share, self.flip = share, load_markup(markup).flip

    def __call__(self, sample: Sample, rng: Rng | None = None) -> Sample:
        if rng is None or sample.points is None or rng.random() >= self.share:
            return sample
        sample.points = sample.points[self.flip]
        return sample.move(np.array([[-1.0, 0.0, sample.size[0] - 1], [0.0, 1.0, 0.0]]), sample.size)


class RandomLight:
    """In training, gain, offset and noise of gray pixels in [0, 1].

    Args:
        gain: standard deviation of the log of the contrast.
        offset: standard deviation of the brightness.
        noise: each face's noise is up to this standard deviation.
    """

    def __init__(self, gain: float, offset: float, noise: float):
        self.gain, self.offset, self.noise = gain, offset, noise

    def __call__(self, sample: Sample, rng: Rng | None = None) -> Sample:
        if rng is not None and (self.gain or self.offset or self.noise):
            gain, offset, noise = (
                np.exp(rng.normal(0, self.gain)),
                rng.normal(0, self.offset),
                rng.uniform(0, self.noise),
            )
            pixels = sample.crop() * np.float32(gain) + np.float32(offset)
            grain = rng.standard_normal(pixels.shape, np.float32) * np.float32(noise)
            sample.pixels = np.clip(pixels + grain, 0, 1)
        return sample


class Normalize:
    """Pixels from 0 … 255 to [0, 1]. The crop is gray already: pictures are decoded as the network wants them."""

    def __call__(self, sample: Sample, rng: Rng | None = None) -> Sample:
        sample.pixels = sample.crop().astype(np.float32) / 255
        return sample


class ToTensor:
    """Pixels (h, w[, 3]) to a contiguous float array (C, h, w), which torch takes over without a copy."""

    def __call__(self, sample: Sample, rng: Rng | None = None) -> Sample:
        pixels = sample.crop()
        sample.pixels = np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1), np.float32)
        return sample


def as_item(sample: Sample) -> dict[str, Any]:
    """What a loader collates: image (C, h, w), and, float32, points (K, 2) IMAGE, to_crop (2, 3) IMAGE -> CROP."""
    assert sample.pixels is not None and sample.points is not None
    return {
        "image": sample.pixels,
        "points": sample.points.astype(np.float32),
        "to_crop": sample.to_crop.astype(np.float32),
    }
