"""A source's faces, checked, decoded once, split, and served in batches."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from fkp.augmentations import Augmentation
from fkp.data import label_places, label_values
from fkp.data.dataset import Batch, FacialKeypointsDataset, WeightedEpochs
from fkp.data.framing import boxed, measured
from fkp.data.image_cache import decode
from fkp.data.label_values import Wrong
from fkp.data.shapes import check_flip, mean_shape, proposal
from fkp.data.table import FaceTable, Fault, Source
from fkp.errors import FkpError
from fkp.files.cache import fingerprint
from fkp.markup import Markup
from fkp.transforms import RandomFlip, Transform

ENOUGH = 10_000  # faces tell left from right

log = logging.getLogger(__name__)


class FacesDataModule(pl.LightningDataModule):
    """Train, val and test faces of a source.

    Args:
        source: gives the table of faces and the rule that splits it.
        transforms: name -> geometric transform, in order: the one way from a face to the network's crop.
        augmentations: name -> what training changes in the crop's pixels, in order.
        batch_size: faces a step, of all processes together.
        num_workers: loader processes.
        gray: the network wants one channel. Pictures are decoded to it, unless an augmentation needs their colours.
        margin: side of the square that is kept of each picture, in face-box sides; None keeps all of it.
        seed: of shuffling and random draws.
        check_labels: refuse labels that do not lie on the faces that the default detector finds in a few images.
    """

    def __init__(
        self,
        source: Source,
        transforms: dict[str, Transform],
        augmentations: dict[str, Augmentation] | None = None,
        batch_size: int = 15,
        num_workers: int = 0,
        gray: bool = True,
        margin: float | None = 3.0,
        seed: int = 0,
        check_labels: bool = True,
    ):
        super().__init__()
        self.source, self.batch_size, self.num_workers = source, batch_size, num_workers
        self.transforms, self.augmentations = (
            list(transforms.values()),
            list((augmentations or {}).values()),
        )
        self.gray, self.margin, self.seed, self.check_labels = gray, margin, seed, check_labels
        self.splits: dict[str, FacialKeypointsDataset] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read, decode, check and split; once.

        Raises:
            FkpError: bad rows, all of them named; labels that do not lie on faces; left and right that do not fit the
                labels; or an empty part.
        """
        if self.splits:
            return
        source = self.source
        table, faults = source.survey()
        source.markup = markup = self._measured(table)
        table = boxed(table, markup)
        gray = self.gray and not any(step.colour for step in self.augmentations)
        canvases, reasons = decode(table, markup, gray, self.margin)
        wrong = label_values.check(table.points, canvases.extents, markup)
        reasons |= {i: f"{kind.what}: {said}" for kind in wrong for i, said in kind.cases.items()}
        faults += [Fault(table.rows[i], reason) for i, reason in sorted(reasons.items())]
        good = np.setdiff1d(np.arange(len(table)), list(reasons))
        if reasons:
            table, canvases = table.select(good), canvases.select(good)
        places = label_places.sample(table, canvases.extents, markup) if self.check_labels else []
        _answer(source, faults, table, wrong, places)
        pictures = str(canvases.file and canvases.file.parent.name)  # a name made of their bytes
        self._fingerprint = fingerprint(pictures, table.points, "\0".join(table.identity))
        parts = table.split_indices(source.protocol)
        # Part after part in one table, which each then sees a slice of, and shares with loader processes.
        order, end = np.concatenate(list(parts.values())), 0
        table, canvases = table.select(order), canvases.select(order)
        train = table.points[: len(parts["train"]) : max(1, len(parts["train"]) // ENOUGH)]
        source.markup = markup = self._proven(train, markup)
        steps = (self.transforms, markup, self.augmentations, self.gray, self.seed)
        for part, chosen in parts.items():
            own = slice(end, end := end + len(chosen))
            self.splits[part] = FacialKeypointsDataset(
                table.select(own), canvases.select(own), *steps
            )

    def _measured(self, table: FaceTable) -> Markup:
        """The source's markup with what training faces tell of it."""
        try:
            train = table.split_indices(self.source.protocol)["train"]
        except FkpError:  # a part would be empty: this is said when bad rows have been
            return self.source.markup
        return measured(table.select(train[:: max(1, len(train) // ENOUGH)]), self.source.markup)

    def _proven(self, points: np.ndarray, markup: Markup) -> Markup:
        """The markup, whose mirror pairs fit the labels (F, K, 2); without them if nothing tells them.

        Raises:
            FkpError: pairs or names that do not fit the labels; or faces are to be flipped and nothing tells the pairs.
        """
        if markup.flips:
            try:
                check_flip(points, markup)
                return markup
            except FkpError:
                if markup.sided:
                    raise
        flips = max([step.p for step in self.transforms if isinstance(step, RandomFlip)], default=0)
        what = f"markup {markup.name}: its names do not tell which points mirror each other"
        pairs = proposal(mean_shape(points), markup)
        if flips:
            raise FkpError(
                f"{what}, so faces cannot be flipped; set transforms.random_flip.p=0 (it is {flips}).{pairs}"
            )
        log.warning("%s, so neither training nor prediction flips faces.%s", what, pairs)
        return replace(markup, mirror=False)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with any picture, label or name of a person; sets up."""
        self.setup()
        return self._fingerprint

    def mean_points(self) -> np.ndarray:
        """(K, 2): the mean training face in CROP pixels, as transforms without a draw crop it."""
        dataset = self.splits["train"]
        some = range(0, len(dataset), max(1, len(dataset) // 500))  # some hundreds tell the mean
        return np.nanmean(dataset.crops(some).crop_points(), axis=0)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Resample and augment, on whichever device the batch now is."""
        return self.splits["train"].finish(batch)

    def _loader(self, part: str) -> DataLoader[Any]:
        dataset, training = self.splits[part], part == "train"
        process, processes = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        for what, count in (
            ("datamodule.batch_size", self.batch_size),
            (f"the part {part}", len(dataset)),
        ):
            if count < processes:
                raise FkpError(
                    f"{what} has not a face for each of {processes} processes, but {count}"
                )
        sampler: Any = range(process, len(dataset), processes)  # in order, and no face twice
        if training:
            sampler = WeightedEpochs(
                dataset.table.weights, self.seed, self.batch_size, process, processes
            )
        return (TrainLoader if training else DataLoader)(
            dataset,
            len(range(process, self.batch_size, processes)),
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # A generator of its own: loading then leaves the random numbers of dropout alone, whatever the workers.
            generator=torch.Generator(),
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Random draws, shuffled, each face as often as its weight says."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """No draws, in order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """No draws, in order."""
        return self._loader("test")


def _answer(
    source: Source, faults: list[Fault], table: FaceTable, wrong: list[Wrong], places: list[Wrong]
) -> None:
    """Answer bad rows as the source does, stop for labels that do not lie on faces, and say what else is strange.

    Args:
        table: the rows that are not bad.
        wrong: why some of the bad rows are.
        places: what is wrong with labels of the table.

    Raises:
        FkpError: bad rows or wrong labels, with the ways out.
    """
    told = []
    try:
        source.answer(faults, len(table))
    except FkpError as error:
        told = [
            str(error),
            *(f"{kind.check} ({len(kind.cases)} faces): {kind.fix}." for kind in wrong),
        ]
    errors = [kind.message(table.rows, len(table)) for kind in places if kind.level == "error"]
    if errors:
        errors.append(
            "python -m fkp.doctor lists all rows; datamodule.check_labels=false trains all the same."
        )
    if told or errors:
        raise FkpError("\n".join([*told, *errors]))

    twice = label_values.twice(table)
    for kind in [*places, *([twice] if twice else [])]:
        log.warning("%s", kind.message(table.rows, len(table)))


class TrainLoader(DataLoader[Any]):
    """A DataLoader that Lightning can leave within an epoch, and that goes on there."""

    sampler: WeightedEpochs
    served = skipped = (
        0  # batches of this epoch that have been handed out; of the next iteration that have been before
    )

    def state_dict(self) -> dict[str, int]:
        """How far the epoch is."""
        return {"served": self.served}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there in the next iteration; from a whole epoch with the first batch."""
        self.skipped = state["served"] % len(self)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self.served, self.skipped = self.skipped, 0
        self.sampler.skipped = self.served * (self.batch_size or 1)
        for batch in super().__iter__():
            self.served += 1
            yield batch


def _as_it_is(batch: Any) -> Any:
    """The dataset makes whole batches itself."""
    return batch
