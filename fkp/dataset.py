"""A table of faces as a torch Dataset: the published `FacialKeypointsDataset`, decoding each picture once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from fkp.canvases import Canvases
from fkp.geometry import face_box
from fkp.markup import Markup
from fkp.sources.table import FaceTable
from fkp.transforms import Sample, Transform, as_item, run

Key = tuple[int, int]


class FacialKeypointsDataset(Dataset[dict[str, Any]]):
    """Faces with key points.

    Indexed by an int for the middle of what the transforms could draw, or by (epoch, index) for a random draw that
    is a function of (seed, epoch, index) alone: neither workers nor their order change it.

    Args:
        table: F labelled faces.
        canvases: their decoded pixels, from `fkp.canvases.decode`.
        transforms: from Sample to Sample; the last one makes a (C, h, w) array.
        markup: says where the face box is.
        seed: of the random draws.
    """

    def __init__(
        self, table: FaceTable, canvases: Canvases, transforms: Sequence[Transform], markup: Markup, seed: int = 0
    ):
        self.table, self.canvases, self.transforms, self.seed = table, canvases, transforms, seed
        self.boxes = [face_box(points, markup) for points in table.points]

    def __len__(self) -> int:
        return len(self.table)

    def sample(self, index: int) -> Sample:
        """The face before any transform."""
        canvases = self.canvases
        width, height = canvases.extents[index]
        points = self.table.points[index]
        return Sample(canvases[index], canvases.affines[index], (int(width), int(height)), self.boxes[index], points)

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        epoch, index = key if isinstance(key, tuple) else (None, key)
        rng = None if epoch is None else np.random.default_rng([self.seed, epoch, index])
        return as_item(run(self.transforms, self.sample(index), rng))


class ShuffledEpochs(Sampler[Key]):
    """Every face once an epoch, in an order that is a function of (seed, epoch) alone, as (epoch, index).

    Lightning calls `set_epoch` at the start of each epoch.
    """

    def __init__(self, length: int, seed: int = 0):
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        return ((self.epoch, int(index)) for index in order)
