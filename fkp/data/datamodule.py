"""Read a source's faces, check and decode them once, split them, and serve them in batches."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from fkp.augmentations import Augmentation
from fkp.data import label_places, label_values
from fkp.data.dataset import Batch, CachedBatch, FacialKeypointsDataset
from fkp.data.folds import ordered
from fkp.data.framing import boxed, measured
from fkp.data.image_cache import ImageCache, decode
from fkp.data.label_values import Wrong
from fkp.data.mirror_pairs import with_proved_pairs
from fkp.data.sampling import TrainLoader, WeightedEpochs
from fkp.data.shapes import check_flip, mean_shape, proposal
from fkp.data.table import FaceTable, Fault, Source
from fkp.errors import FkpError
from fkp.files.cache import fingerprint
from fkp.markup import Markup
from fkp.transforms import Transform

ENOUGH = 10_000  # training faces that suffice to measure a markup and to check its flip indices
MEAN = 500  # training faces that suffice for the mean face

log = logging.getLogger(__name__)


class FacesDataModule(pl.LightningDataModule):
    """Serve the train, val and test faces of a source.

    Args:
        source: gives the table of faces and the protocol that splits it.
        transforms: name -> geometric transform, in order, from a face to the network's crop.
        augmentations: name -> change of the crop's pixels in training, in order.
        batch_size: faces per step, of all processes together.
        num_workers: loader processes.
        gray: the network takes one channel. Images are decoded to gray, unless an augmentation
            needs their colours.
        margin: side of the square that is cached of each image, in sides of the face box; None
            caches whole images.
        seed: of shuffling and of random draws.
        check_labels: refuse labels that do not lie on the faces that the default detector finds in
            a sample of the images.
        train_faces: train on so many faces, of people in a random order by `seed`, for a learning
            curve: fewer faces are a part of more. None for all.
        whole: use all faces for training, without val and test, unless the source has test faces
            of its own: for a training that cross-validates itself.
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
        train_faces: int | None = None,
        whole: bool = False,
    ):
        super().__init__()
        self.source, self.batch_size, self.num_workers = source, batch_size, num_workers
        self.transforms = list(transforms.values())
        self.augmentations = list((augmentations or {}).values())
        self.gray, self.margin, self.seed, self.check_labels = gray, margin, seed, check_labels
        self.train_faces, self.whole = train_faces, whole
        self.splits: dict[str, FacialKeypointsDataset] = {}
        self.held_out = True  # whether no validation face is trained on

    def setup(self, stage: str | None = None) -> None:
        """Read, measure, decode, check and split the faces; a second call does nothing.

        Raises:
            FkpError: bad rows, all of them named; labels that do not lie on faces; flip indices
                that do not fit the labels; or an empty split.
        """
        if self.splits:
            return

        # Read the labels, and measure what the markup does not say.
        table, faults = self.source.survey()
        markup = self.source.markup = self._measure(table)
        table = boxed(table, markup)

        # Decode the images, and check the labels against them.
        table, cache = self._decode_and_check(table, faults, markup)
        self._fingerprint = _fingerprint(table, cache)

        # Order the faces by split: each split is then a slice of one table, and shares its memory
        # with loader processes.
        splits = self._split(table)
        splits["train"] = self._limited(table, splits["train"])
        self.held_out = not len(np.intersect1d(splits["train"], splits["val"]))
        if not self.held_out:
            log.warning("validation faces are trained on: their error is no measure of the model")
        order = np.concatenate(list(splits.values()))
        table, cache = table.select(order), cache.select(order)

        train = table.points[: len(splits["train"])]
        markup = self.source.markup = self._check_flips(_thinned(train, ENOUGH), markup)
        sizes = {name: len(indices) for name, indices in splits.items()}
        self._faces = table, cache
        self.splits = self._datasets(table, cache, markup, sizes)

    @property
    def is_whole(self) -> bool:
        """Return whether all faces are for training, as `whole` asks for."""
        part = self.source.folds is not None or self.train_faces is not None
        return self.whole and self.source.protocol == "identity" and not part

    def _split(self, table: FaceTable) -> dict[str, np.ndarray]:
        """Return the indices of the faces in train, val and test."""
        if self.is_whole:
            none = np.zeros(0, int)
            return {"train": np.arange(len(table)), "val": none, "test": none}
        return self.source.split_indices(table)

    def _limited(self, table: FaceTable, train: np.ndarray) -> np.ndarray:
        """Return the indices of the training faces that `train_faces` leaves."""
        if self.train_faces is None:
            return train
        if self.train_faces > len(train):
            raise FkpError(
                f"datamodule.train_faces={self.train_faces}: there are {len(train)}",
                key="datamodule.train_faces",
            )
        order = ordered(table.select(train).identity, f"{self.seed} ")
        return np.sort(train[order[: self.train_faces]])

    def _measure(self, table: FaceTable) -> Markup:
        """Return the source's markup, completed by what is measured on training faces."""
        try:
            train = self._split(table)["train"]
        except FkpError:
            # A split would be empty. Bad rows may be why, so they are reported first.
            train = np.arange(len(table))
        return measured(table.select(_thinned(train, ENOUGH)), self.source.markup)

    def _decode_and_check(
        self, table: FaceTable, faults: list[Fault], markup: Markup
    ) -> tuple[FaceTable, ImageCache]:
        """Decode all images, and return the faces whose image and label can be used.

        Args:
            table: the faces.
            faults: the bad rows that reading has found.
            markup: the meaning of the points.

        Raises:
            FkpError: bad rows, unless the source skips them; or labels that do not lie on faces.
        """
        gray = self.gray and not any(step.colour for step in self.augmentations)
        cache, reasons = decode(table, markup, gray, self.margin)

        # Labels that cannot be pixel coordinates make their rows bad, as unreadable images do.
        wrong = label_values.check(table.points, cache.extents, markup)
        for kind in wrong:
            reasons |= {i: f"{kind.what}: {detail}" for i, detail in kind.cases.items()}
        bad = [Fault(table.rows[i], reason) for i, reason in sorted(reasons.items())]

        if reasons:
            good = np.setdiff1d(np.arange(len(table)), list(reasons))
            table, cache = table.select(good), cache.select(good)

        places = label_places.sample(table, cache.extents, markup) if self.check_labels else []
        _report(self.source, [*faults, *bad], table, wrong, places)
        return table, cache

    def _check_flips(self, points: np.ndarray, markup: Markup) -> Markup:
        """Return the markup if its flip indices fit the labels.

        If its names do not say which points mirror each other, the labels may prove it; else it is
        returned without flips.

        Args:
            points: (F, K, 2) training labels.
            markup: their meaning.

        Raises:
            FkpError: the flip indices do not fit the labels.
        """
        if markup.flips:
            try:
                check_flip(points, markup)
                return markup
            except FkpError:
                if markup.sided:
                    raise
                if markup.mirror and (proved := with_proved_pairs(points, markup)):
                    return proved

        what = f"markup {markup.name}: the point names do not say which points mirror each other"
        pairs = proposal(mean_shape(points), markup)
        log.warning("%s, so neither training nor prediction flips faces.%s", what, pairs)
        return replace(markup, mirror=False)

    def _datasets(
        self, table: FaceTable, cache: ImageCache, markup: Markup, sizes: Mapping[str, int]
    ) -> dict[str, FacialKeypointsDataset]:
        """Make a dataset of each split, where the table holds the splits one after the other."""
        datasets, end = {}, 0
        for split, size in sizes.items():
            own = slice(end, end + size)
            datasets[split] = FacialKeypointsDataset(
                table.select(own),
                cache.select(own),
                self.transforms,
                markup,
                self.augmentations,
                self.gray,
                self.seed,
            )
            end += size
        return datasets

    def select(self, faces: np.ndarray) -> FacialKeypointsDataset:
        """Make a dataset of faces, numbered from 0 through train, val and test."""
        table, cache = self._faces
        chosen = table.select(faces), cache.select(faces)
        return self._datasets(*chosen, self.source.markup, {"faces": len(faces)})["faces"]

    @property
    def fingerprint(self) -> str:
        """Return 16 hex digits that change with any image, label or identity; calls `setup`."""
        self.setup()
        return self._fingerprint

    def mean_points(self) -> np.ndarray:
        """Compute the mean training face (K, 2), CROP pixels, of crops without random draws."""
        dataset = self.splits["train"]
        faces = _thinned(np.arange(len(dataset)), MEAN)
        return np.nanmean(dataset.crops(faces).crop_points(), axis=0)

    def on_after_batch_transfer(self, batch: CachedBatch, dataloader_idx: int) -> Batch:
        """Resample and augment a batch on the device that it was moved to."""
        return self.splits["train"].finish(batch)

    def train_dataloader(self) -> DataLoader[Any]:
        """Load random draws, shuffled, each face as often as its weight says."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Load the validation faces in order, without random draws."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Load the test faces in order, without random draws."""
        return self._loader("test")

    def _loader(self, split: str) -> DataLoader[Any]:
        """Make the loader of this process's share of a split."""
        dataset, training = self.splits[split], split == "train"
        process, processes = 0, 1
        if self.trainer:
            process, processes = self.trainer.global_rank, self.trainer.world_size
        _check_share("datamodule.batch_size", self.batch_size, processes)
        _check_share(f"the split {split}", len(dataset), processes)

        # Evaluation takes the faces in order, and none twice.
        sampler: Sampler[Any] | range = range(process, len(dataset), processes)
        if training:
            sampler = WeightedEpochs(
                dataset.table.weights, self.seed, self.batch_size, process, processes
            )

        return (TrainLoader if training else DataLoader)(
            dataset,
            batch_size=len(range(process, self.batch_size, processes)),
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=_no_collate,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # With its own generator, loading does not touch the random numbers of dropout.
            generator=torch.Generator(),
        )


def _thinned(rows: np.ndarray, count: int) -> np.ndarray:
    """Take evenly spaced rows of an array: at least `count`, if it has so many."""
    return rows[:: max(1, len(rows) // count)]


def _fingerprint(table: FaceTable, cache: ImageCache) -> str:
    """Return 16 hex digits of the images' bytes, the labels and the identities."""
    # The name of the cache's folder is a digest of the images' bytes.
    images = str(cache.file and cache.file.parent.name)
    return fingerprint(images, table.points, "\0".join(table.identity))


def _check_share(what: str, count: int, processes: int) -> None:
    """Refuse a count of faces that leaves a process without one."""
    if count < processes:
        raise FkpError(
            f"{what} must have a face for each of {processes} processes, but {count} are too few"
        )


def _report(
    source: Source, faults: list[Fault], table: FaceTable, wrong: list[Wrong], places: list[Wrong]
) -> None:
    """Refuse bad rows and labels that do not lie on faces; log a warning of what may be right.

    Args:
        source: says whether bad rows are refused or skipped.
        faults: the bad rows.
        table: the other rows.
        wrong: kinds of wrong labels among the bad rows.
        places: kinds of wrong labels in the table.

    Raises:
        FkpError: bad rows or wrong labels, with what to do.
    """
    refused = []
    try:
        source.answer(faults, len(table))
    except FkpError as error:
        refused = [str(error)]
        refused += [f"{kind.check} ({len(kind.cases)} faces): {kind.fix}." for kind in wrong]

    errors = [kind.message(table.rows, len(table)) for kind in places if kind.level == "error"]
    if errors:
        errors.append(
            "python -m fkp.doctor lists all rows; datamodule.check_labels=false trains anyway."
        )
    if refused or errors:
        raise FkpError("\n".join([*refused, *errors]))

    twice = label_values.twice(table)
    for kind in [*places, *([twice] if twice else [])]:
        log.warning("%s", kind.message(table.rows, len(table)))


def _no_collate(batch: Any) -> Any:
    """Return the batch: the dataset makes whole batches itself."""
    return batch
