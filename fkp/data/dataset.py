"""A table of faces as a torch Dataset: the published `FacialKeypointsDataset`, decoding each picture once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from fkp.augmentations import Augmentation, resample, to_gray
from fkp.data.image_cache import ImageCache
from fkp.data.table import FaceTable
from fkp.geometry import apply, centre_and_side, compose, invert, scale_of, shrunk
from fkp.markup import Markup
from fkp.transforms import Crops, Normalize, Transform, run

Key = tuple[int, int]
Batch = dict[str, Tensor]


class FacialKeypointsDataset(Dataset[Batch]):
    """Faces with key points, as the network sees them.

    Indexed by an int for the middle of what the transforms could draw, or by (epoch, draw) for a random draw of the
    face draw % len(self), a function of (seed, epoch, draw) alone: neither workers nor their order change it.

    An item is image (C, h, w) in [0, 1], points (K, 2) IMAGE pixels, to_crop (2, 3) IMAGE -> CROP and side, that of the
    face box, CROP pixels. A loader takes
    whole batches: `__getitems__` gathers decoded pixels and affines, `finish` makes images of them on their device.

    Args:
        table: F labelled faces.
        canvases: their decoded pixels, from `fkp.data.image_cache.decode`.
        transforms: the geometric steps, from the picture to the crop.
        markup: says which points a flip swaps.
        augmentations: what a random draw changes in the pixels, in order, those of colour first.
        gray: the network wants one channel, even of coloured canvases.
        seed: of the random draws.
    """

    def __init__(
        self,
        table: FaceTable,
        canvases: ImageCache,
        transforms: Sequence[Transform],
        markup: Markup,
        augmentations: Sequence[Augmentation] = (),
        gray: bool = True,
        seed: int = 0,
    ):
        self.table, self.canvases, self.transforms, self.gray, self.seed = (
            table,
            canvases,
            transforms,
            gray,
            seed,
        )
        # Those that need colours come first: after them, a gray network's crops are gray.
        self.augmentations = sorted(
            (step for step in augmentations if step.active), key=lambda step: not step.colour
        )
        self.flip_indices = markup.flip_indices if markup.flips else None
        # How many draws a face needs: for its place, and for its pixels.
        self.draws = tuple(
            sum(step.draws for step in steps) for steps in (transforms, self.augmentations)
        )
        self.normalize = Normalize()

    def __len__(self) -> int:
        return len(self.table)

    def crops(self, faces: Sequence[int] | np.ndarray, draws: np.ndarray | None = None) -> Crops:
        """The crops of these faces, with the points in them."""
        faces = np.asarray(faces)
        boxes, extents = self.canvases.boxes[faces].astype(float), self.canvases.extents[faces]
        return run(
            self.transforms,
            Crops(boxes, extents, self.table.points[faces], self.flip_indices),
            draws,
        )

    def __getitem__(self, key: int | Key) -> Batch:
        return {name: value[0] for name, value in self.finish(self.__getitems__([key])).items()}

    def __getitems__(self, keys: Sequence[int | Key]) -> Batch:
        """Canvases (B, C, H, W) uint8, padded to one size, with the affines from and to the crop, labels and draws."""
        draws = None
        if isinstance(keys[0], tuple):
            draws = np.stack([self._draw(key) for key in keys])  # type: ignore[arg-type]
        faces = [(key[1] if isinstance(key, tuple) else key) % len(self) for key in keys]
        self.canvases.expect(faces)
        crops = self.crops(faces, None if draws is None else draws[:, : self.draws[0]])
        assert crops.points is not None
        to_canvas = compose(invert(crops.to_crop), self.canvases.affines[faces])
        # Of each canvas only what the crop shows, so that less is copied, and to the device.
        width, height = crops.size
        corners = apply(
            to_canvas, np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
        )
        shapes = self.canvases.shapes[faces, 1::-1]
        larger = scale_of(to_canvas)
        # Where pixels are averaged in blocks, the blocks beyond the edge count too: without them it would be dark.
        round_it = np.where(larger >= 2, np.ceil(3 * larger), 0).astype(int)[:, None]
        low = np.clip(np.floor(corners.min(1)).astype(int) - round_it, 0, shapes - 1)
        high = np.clip(np.floor(corners.max(1)).astype(int) + 2 + round_it, low + 1, shapes)
        to_canvas[:, :, 2] -= low
        spans = zip(faces, low.tolist(), high.tolist(), strict=True)
        images = [
            self.canvases[face][top:bottom, left:right]
            for face, (left, top), (right, bottom) in spans
        ]
        for i in np.flatnonzero(larger >= 2).tolist():
            images[i], affine = shrunk(images[i], invert(to_canvas[i]), crops.size)
            to_canvas[i] = invert(affine)
        tallest, widest, channels = np.max([image.shape for image in images], 0).tolist()
        canvases = np.zeros((len(images), channels, tallest, widest), np.uint8)
        for canvas, image in zip(canvases, images, strict=True):
            canvas[:, : image.shape[0], : image.shape[1]] = image.transpose(2, 0, 1)
        batch = {
            "canvases": torch.from_numpy(canvases),
            "to_canvas": torch.from_numpy(to_canvas).float(),
            "size": torch.tensor(crops.size),
            "points": torch.from_numpy(crops.points).float(),
            "to_crop": torch.from_numpy(crops.to_crop).float(),
            "side": torch.from_numpy(
                centre_and_side(crops.boxes)[2] * scale_of(crops.to_crop)
            ).float(),
        }
        if draws is not None and self.augmentations:
            batch["draws"] = torch.from_numpy(draws[:, self.draws[0] :]).float()
        return batch

    def _draw(self, key: Key) -> np.ndarray:
        """(draws, 2): uniform and normal numbers; those of the geometry do not depend on what follows."""
        rng = np.random.default_rng([self.seed, *key])
        return np.concatenate(
            [np.stack([rng.random(n), rng.standard_normal(n)], 1) for n in self.draws]
        )

    @torch.no_grad()
    def finish(self, batch: Batch) -> Batch:
        """Image (B, C, h, w) in [0, 1] of what `__getitems__` gathered, on the batch's device, and the rest of it."""
        width, height = batch["size"].tolist()
        images = self.normalize(resample(batch["canvases"], batch["to_canvas"], (width, height)))
        draws, start = batch.get("draws"), 0
        for step in self.augmentations if draws is not None else ():
            if self.gray and not step.colour:
                images = to_gray(images)
            assert draws is not None
            images = step(images, draws[:, start : start + step.draws])
            start += step.draws
        images = to_gray(images) if self.gray else images
        images = images if draws is None else images.clamp(0, 1)
        return {"image": images} | {name: batch[name] for name in ("points", "to_crop", "side")}


class WeightedEpochs(Sampler[Key]):
    """Every face as often as its weight says, in an order that is a function of (seed, epoch) alone.

    Yields (epoch, draw), where draw % len(weights) is the face: one of weight 2 comes as i and as i + len(weights).
    Of a weight's fraction, that share of the faces comes once more, others in other epochs. Lightning calls
    `set_epoch` at the start of each epoch.

    Of several processes each takes its share of every batch, so that all of them together take what one would: the
    faces at its number, and at that many processes on. Where an epoch's last batch has not a face for each, it is left
    out.

    Args:
        weights: (F,), at least 0.
        seed: of the order.
        batch: faces that all processes together take in a step.
        process: the number of this one, from 0.
        processes: how many there are.
    """

    def __init__(
        self,
        weights: np.ndarray,
        seed: int = 0,
        batch: int = 1,
        process: int = 0,
        processes: int = 1,
    ):
        self.weights, self.seed, self.epoch = np.asarray(weights, float), seed, 0
        self.skipped = (
            0  # faces at the beginning of this process's order that have been shown before
        )
        count = len(self._draws())
        places = np.arange(count - count % batch if count % batch < processes else count)
        self.mine = places[places % batch % processes == process]

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.mine)

    def __iter__(self) -> Iterator[Key]:
        draws = self._draws()
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(draws))
        return ((self.epoch, int(draw)) for draw in draws[order][self.mine][self.skipped :])

    def _draws(self) -> np.ndarray:
        """The epoch's draws; as many in every epoch."""
        count = len(self.weights)
        often = np.floor(self.weights).astype(int)
        whole = [
            np.flatnonzero(often > visit) + visit * count for visit in range(often.max(initial=0))
        ]
        more = []
        for weight in np.unique(self.weights[self.weights > often]):
            faces = np.flatnonzero(self.weights == weight)
            part = round((weight - np.floor(weight)) * len(faces))
            # A window that moves on over one shuffled order, so that in time every face comes as often as the others.
            shuffled = np.random.default_rng(self.seed).permutation(faces)
            chosen = np.take(shuffled, np.arange(part) + self.epoch * part, mode="wrap")
            more.append(chosen + int(np.floor(weight)) * count)
        return np.concatenate([*whole, *more]) if whole or more else np.zeros(0, int)
