"""A source's faces, split by identity, decoded once, and served in batches."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from fkp.canvases import decode
from fkp.dataset import FacialKeypointsDataset, ShuffledEpochs
from fkp.markup import Markup
from fkp.sources.table import PARTS, FaceTable
from fkp.transforms import Transform, run


class Source(Protocol):
    """Where faces come from."""

    split: str
    markup: Markup

    def read(self) -> FaceTable: ...


class FacesDataModule(pl.LightningDataModule):
    """Train, val and test faces of a source.

    Args:
        source: gives the table of faces and the rule that splits it.
        transforms: name -> transform, in order: the one way from a face to the network's input.
        batch_size: faces a step.
        num_workers: loader processes; 0 is quickest on few cores, as a decoded face costs less than handing it over.
        gray: decode to one channel.
        margin: side of the square that is kept of each picture, in face-box sides; None keeps all of it.
        seed: of shuffling and random transforms.
    """

    def __init__(
        self,
        source: Source,
        transforms: dict[str, Transform],
        batch_size: int = 15,
        num_workers: int = 0,
        gray: bool = True,
        margin: float | None = 3.0,
        seed: int = 0,
    ):
        super().__init__()
        self.source, self.transforms, self.batch_size, self.num_workers = source, transforms, batch_size, num_workers
        self.gray, self.margin, self.seed = gray, margin, seed
        self.parts: dict[str, FacialKeypointsDataset] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read, check, split and decode; once."""
        if self.parts:
            return
        markup = self.source.markup
        tables = self.source.read().split(self.source.split)
        transforms = list(self.transforms.values())
        for part in PARTS:
            canvases = decode(tables[part], markup, self.gray, self.margin)
            self.parts[part] = FacialKeypointsDataset(tables[part], canvases, transforms, markup, self.seed)

    def mean_points(self) -> np.ndarray:
        """(K, 2): the mean training face in CROP pixels, as transforms without a draw crop it."""
        dataset = self.parts["train"]
        some = range(0, len(dataset), max(1, len(dataset) // 500))  # some hundreds tell the mean
        samples = [run(dataset.transforms, dataset.sample(i)) for i in some]
        return np.nanmean([sample.crop_points() for sample in samples], axis=0)

    def _loader(self, part: str) -> DataLoader[dict[str, Any]]:
        dataset = self.parts[part]
        return DataLoader(
            dataset,
            self.batch_size,
            sampler=ShuffledEpochs(len(dataset), self.seed) if part == "train" else None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # A generator of its own: loading then leaves the random numbers of dropout alone, whatever the workers.
            generator=torch.Generator(),
        )

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Random draws, shuffled."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """No draws, in order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """No draws, in order."""
        return self._loader("test")
