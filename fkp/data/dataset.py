"""Serve a table of faces as a torch Dataset: the published `FacialKeypointsDataset`, with a cache.

A batch is made in two halves. `__getitems__` runs in loader processes: it gathers cached pixels,
affines and random draws. `finish` runs on the batch's device: it resamples and augments images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fkp.augmentations import Augmentation, resample, to_gray
from fkp.data.image_cache import ImageCache
from fkp.data.sampling import Key
from fkp.data.table import FaceTable
from fkp.geometry import apply, centre_and_side, compose, invert, scale_of, shrunk
from fkp.markup import Markup
from fkp.transforms import Crops, Normalize, Transform, run

# A crop of at least so many cached pixels per pixel is averaged in blocks before it is resampled.
SHRINK = 2


class CachedBatch(TypedDict):
    """A batch as loader processes gather it, before `FacialKeypointsDataset.finish`.

    Keys:
        cached: (B, C, H, W) uint8, the pixels of the cached crops, padded to one size.
        to_cached: (B, 2, 3), CROP -> cached.
        size: (2,), width and height of the network's crops.
        points, to_crop, side: as in `Batch`.
        draws: (B, n, 2), the random draws of the augmentations; only if training draws any.
    """

    cached: Tensor
    to_cached: Tensor
    size: Tensor
    points: Tensor
    to_crop: Tensor
    side: Tensor
    draws: NotRequired[Tensor]


class Batch(TypedDict):
    """A batch as the network takes it; one item is the same without B.

    Keys:
        image: (B, C, h, w) in [0, 1].
        points: (B, K, 2), IMAGE pixels; NaN where a point is not labelled.
        to_crop: (B, 2, 3), IMAGE -> CROP.
        side: (B,), side of the face box, CROP pixels.
    """

    image: Tensor
    points: Tensor
    to_crop: Tensor
    side: Tensor


class FacialKeypointsDataset(Dataset[Batch]):
    """Serve faces with key points as the network sees them.

    An index is either an int, for the middle of what the transforms could draw, or a pair
    (epoch, draw), for a random draw of the face draw % len(self). A random draw is a function of
    (seed, epoch, draw) alone: it does not depend on the number or the order of loader processes.

    Args:
        table: F labelled faces.
        cache: their decoded pixels, from `fkp.data.image_cache.decode`.
        transforms: the geometric steps from image to crop, in order.
        markup: gives the flip indices.
        augmentations: the changes that a random draw makes to the pixels, in order; those that
            need colour come first.
        gray: the network takes one channel, even if the cached crops have colour.
        seed: of the random draws.
    """

    def __init__(
        self,
        table: FaceTable,
        cache: ImageCache,
        transforms: Sequence[Transform],
        markup: Markup,
        augmentations: Sequence[Augmentation] = (),
        gray: bool = True,
        seed: int = 0,
    ):
        self.table, self.cache, self.transforms = table, cache, transforms
        self.gray, self.seed = gray, seed
        self.flip_indices = markup.flip_indices if markup.flips else None
        self.normalize = Normalize()

        # Colour comes first: after it, the crops of a gray network are gray.
        active = [step for step in augmentations if step.active]
        self.augmentations = sorted(active, key=lambda step: not step.colour)

        # Number of random draws per face: for the geometry, and for the pixels.
        self.draws = tuple(
            sum(step.draws for step in steps) for steps in (transforms, self.augmentations)
        )

    def __len__(self) -> int:
        return len(self.table)

    def crops(self, faces: Sequence[int] | np.ndarray, draws: np.ndarray | None = None) -> Crops:
        """Run the transforms on B faces, with their labels; draws: (B, n, 2) or None."""
        faces = np.asarray(faces)
        boxes, extents = self.cache.boxes[faces].astype(float), self.cache.extents[faces]
        crops = Crops(boxes, extents, self.table.points[faces], self.flip_indices)
        return run(self.transforms, crops, draws)

    def __getitem__(self, key: int | Key) -> Batch:
        batch = self.finish(self.__getitems__([key]))
        return Batch(
            image=batch["image"][0],
            points=batch["points"][0],
            to_crop=batch["to_crop"][0],
            side=batch["side"][0],
        )

    def __getitems__(self, keys: Sequence[int | Key]) -> CachedBatch:
        """Gather what `finish` needs to make the images of these keys, all ints or all pairs."""
        faces = [(key[1] if isinstance(key, tuple) else key) % len(self) for key in keys]
        draws = self._all_draws(keys)
        self.cache.prefetch(faces)

        # Geometry: where each crop lies in its image and in its cached crop.
        crops = self.crops(faces, None if draws is None else draws[:, : self.draws[0]])
        to_cached = compose(invert(crops.to_crop), self.cache.affines[faces])  # (B, 2, 3)

        # Pixels: of each cached crop only what the crop shows, averaged where it is much larger.
        images, to_cached = self._visible(faces, to_cached, crops.size)
        images, to_cached = _shrink(images, to_cached, crops.size)

        assert crops.points is not None
        side = centre_and_side(crops.boxes)[2] * scale_of(crops.to_crop)
        batch = CachedBatch(
            cached=torch.from_numpy(_stack(images)),
            to_cached=torch.from_numpy(to_cached).float(),
            size=torch.tensor(crops.size),
            points=torch.from_numpy(crops.points).float(),
            to_crop=torch.from_numpy(crops.to_crop).float(),
            side=torch.from_numpy(side).float(),
        )
        if draws is not None and self.augmentations:
            batch["draws"] = torch.from_numpy(draws[:, self.draws[0] :]).float()
        return batch

    def _all_draws(self, keys: Sequence[int | Key]) -> np.ndarray | None:
        """Draw the random numbers (B, n, 2) of pairs; None for ints."""
        draws = [self._draw(key) for key in keys if isinstance(key, tuple)]
        return np.stack(draws) if draws else None

    def _draw(self, key: Key) -> np.ndarray:
        """Draw (n, 2) uniform and normal numbers; the geometry's do not depend on later steps."""
        rng = np.random.default_rng([self.seed, *key])
        return np.concatenate(
            [np.stack([rng.random(n), rng.standard_normal(n)], 1) for n in self.draws]
        )

    def _visible(
        self, faces: Sequence[int], to_cached: np.ndarray, size: tuple[int, int]
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Slice from each cached crop the pixels that the crop shows, so that less is copied.

        Args:
            faces: B indices.
            to_cached: (B, 2, 3), CROP -> cached crop.
            size: width, height of the crops.

        Returns:
            B views (h, w, C), and the affines (B, 2, 3), CROP -> view.
        """
        width, height = size
        corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
        corners = apply(to_cached, corners)  # (B, 4, 2)
        extents = self.cache.shapes[faces, 1::-1]  # (B, 2): width, height

        # Averaging needs the blocks beyond the edge too; without them the edge would be dark.
        scale = scale_of(to_cached)
        border = np.where(scale >= SHRINK, np.ceil(3 * scale), 0).astype(int)[:, None]
        low = np.clip(np.floor(corners.min(1)).astype(int) - border, 0, extents - 1)
        high = np.clip(np.floor(corners.max(1)).astype(int) + 2 + border, low + 1, extents)

        spans = zip(faces, low.tolist(), high.tolist(), strict=True)
        views = [
            self.cache[face][top:bottom, left:right] for face, (left, top), (right, bottom) in spans
        ]
        to_view = to_cached.copy()
        to_view[:, :, 2] -= low
        return views, to_view

    @torch.no_grad()
    def finish(self, batch: CachedBatch) -> Batch:
        """Resample and augment a gathered batch on its device."""
        width, height = batch["size"].tolist()
        images = resample(batch["cached"], batch["to_cached"], (width, height))
        images = self.normalize(images)  # (B, C, h, w)

        draws = batch.get("draws")
        if draws is not None:
            images = self._augment(images, draws)

        return Batch(
            image=to_gray(images) if self.gray else images,
            points=batch["points"],
            to_crop=batch["to_crop"],
            side=batch["side"],
        )

    def _augment(self, images: Tensor, draws: Tensor) -> Tensor:
        """Apply the augmentations in order, each with its own part of the draws (B, n, 2)."""
        start = 0
        for step in self.augmentations:
            if self.gray and not step.colour:
                images = to_gray(images)
            images = step(images, draws[:, start : start + step.draws])
            start += step.draws
        images = to_gray(images) if self.gray else images
        return images.clamp_(0, 1)


def _shrink(
    images: list[np.ndarray], affines: np.ndarray, size: tuple[int, int]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Average much larger images in blocks, so that bilinear sampling skips no pixel.

    Args:
        images: B images (h, w, C).
        affines: (B, 2, 3), CROP -> image.
        size: width, height of the crops.
    """
    images, affines = list(images), affines.copy()
    for i in np.flatnonzero(scale_of(affines) >= SHRINK).tolist():
        images[i], to_crop = shrunk(images[i], invert(affines[i]), size)
        affines[i] = invert(to_crop)
    return images, affines


def _stack(images: list[np.ndarray]) -> np.ndarray:
    """Stack images (h, w, C) to (B, C, H, W), padded with black at the right and the bottom."""
    height, width, channels = np.max([image.shape for image in images], 0).tolist()
    stack = np.zeros((len(images), channels, height, width), np.uint8)
    for padded, image in zip(stack, images, strict=True):
        padded[:, : image.shape[0], : image.shape[1]] = image.transpose(2, 0, 1)
    return stack
