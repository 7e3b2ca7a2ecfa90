"""Hold labelled faces in one table, define the sources of such tables, and split them."""

from __future__ import annotations

import logging
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from fkp.data.columns import Texts, joined, taken
from fkp.data.folds import fold_indices, place
from fkp.errors import FkpError
from fkp.markup import Markup

ALL = "all"  # the protocol that trains on every face
PROTOCOLS = ("official", "identity", "strict", ALL)
EXTRA = "extra"  # instead of the publisher's split: a face for training only, under any protocol
SPLITS = ("train", "val", "test")

# Fractions of people in two splits. A hash of the name decides, so it is the same on every machine.
TEST_SHARE, VAL_SHARE = 0.15, 0.15

# Pixels from the corner of an image: the largest coordinate. OpenCV reads no image that long.
FAR = 1 << 20

SHOWN = 3  # people that a message names
LONG = 500  # characters of a row's fault that a message shows; it may quote most of the row

OnBad = Literal["stop", "skip"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fault:
    """State why one row cannot be used.

    Args:
        row: where it was read from, `file:row`.
        what: what is wrong with it.
    """

    row: str
    what: str

    def __str__(self) -> str:
        what = self.what if len(self.what) <= LONG else self.what[:LONG] + "…"
        return f"{self.row}: {what}"


class FaceTable:
    """Hold F labelled faces, one column per property. Large columns lie in files, not in memory.

    Args:
        paths: F image files.
        points: (F, K, 2) float64, IMAGE pixels; NaN where a point is not labelled.
        identity: F names of people; faces of one name never fall into different splits.
        rows: F places that the labels were read from, `file:row`, for messages.
        official: F names of the publisher's splits, "train" or "test", or `EXTRA` for faces that
            are for training only; None for all "train".
        boxes: (F, 4) face boxes, IMAGE pixels; NaN for a face, or None for all, to derive them
            from the points.
        weights: (F,) how often an epoch shows each face; None for once.
    """

    def __init__(
        self,
        paths: Sequence[Path] | Texts[Path],
        points: np.ndarray,
        identity: Sequence[str] | Texts[str],
        rows: Sequence[str] | Texts[str],
        official: Sequence[str] | np.ndarray | None = None,
        boxes: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ):
        count = len(paths)
        self.paths, self.points = Texts.of(paths, Path), np.asarray(points, float)
        self.identity, self.rows = Texts.of(identity, str), Texts.of(rows, str)
        self.official = np.full(count, "train") if official is None else np.asarray(official, "U5")
        self.boxes = np.full((count, 4), np.nan) if boxes is None else np.asarray(boxes, float)
        self.weights = np.ones(count) if weights is None else weights

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, chosen: np.ndarray | slice) -> FaceTable:
        """Select faces by indices, a mask or a slice; a slice shares memory with this table."""
        return FaceTable(**{name: taken(column, chosen) for name, column in vars(self).items()})

    @staticmethod
    def joined(tables: Iterable[FaceTable]) -> FaceTable:
        """Join tables in order; they are consumed one at a time, so a generator can make them."""
        return FaceTable(**joined(map(vars, tables)))

    def split(self, protocol: str) -> dict[str, FaceTable]:
        """Split into train, val and test, by `split_indices`."""
        return {name: self.select(chosen) for name, chosen in self.split_indices(protocol).items()}

    def split_indices(self, protocol: str) -> dict[str, np.ndarray]:
        """Return the indices of the faces in train, val and test.

        - `identity`: all faces are pooled, and no person is in two splits.
        - `official`: the publisher's test faces are test, whoever is in them; val is taken from
          the rest by identity.
        - `strict`: as identity, but publisher's test faces of people in train or val are left out.
          So one model can be scored both on unseen people and on the publisher's test faces.
        - `all`: every face is in train, and none in test. Those of val by `identity` are in val,
          too, so that a training can be watched: their error is no measure of the model.

        Faces for training only (`EXTRA`) are in train, but for people of val or test.

        Raises:
            FkpError: unknown protocol, or a split that would be empty.
        """
        if protocol not in PROTOCOLS:
            known = ", ".join(PROTOCOLS)
            raise FkpError(f"data.protocol={protocol}: no such protocol; there is {known}")

        if protocol == ALL:
            val = self.split_indices("identity")["val"]
            return {"train": np.arange(len(self)), "val": val, "test": val[:0]}

        places = np.fromiter(map(place, self.identity), float, len(self))
        masks = self._masks(protocol, places)

        if not all(mask.any() for mask in masks.values()):
            # There are few people, or they were selected by this same hash, as are the people of
            # another table's train split. Then use their rank by the hash instead.
            pooled = np.unique(places[self.official != EXTRA])
            people = max(1, len(pooled))
            masks = self._masks(protocol, (np.searchsorted(pooled, places) + 0.5) / people)
            if empty := [name for name, mask in masks.items() if not mask.any()]:
                raise FkpError(self._too_few(protocol, empty))
            _warn_of_ranks(protocol, people)
        return {name: np.flatnonzero(mask) for name, mask in masks.items()}

    def _masks(self, protocol: str, places: np.ndarray) -> dict[str, np.ndarray]:
        """Return a mask (F,) per split; places: (F,) in [0, 1), a number for each face's person."""
        official, pooled = self.official == "test", self.official != EXTRA
        test = official if protocol == "official" else pooled & (places < TEST_SHARE)
        val = pooled & ~test & (places >= TEST_SHARE) & (places < TEST_SHARE + VAL_SHARE)
        left_out = official & (protocol == "strict")
        # A person of val or test may also be among the faces for training only.
        left_out |= ~pooled & np.isin(places, places[val | test])
        return {"train": ~test & ~val & ~left_out, "val": val & ~left_out, "test": test}

    def _too_few(self, protocol: str, empty: list[str]) -> str:
        """Describe that a protocol leaves some splits empty, and which people the table has."""
        people = Counter(self.identity).most_common()
        shown = [f"{name!r} ({count} faces)" for name, count in people[:SHOWN]]
        shown += ["…"] if len(people) > SHOWN else []
        names = f" ({', '.join(shown)})" if people else ""

        what = f"data.protocol={protocol} leaves no face for {' and '.join(empty)}"
        found = f"{len(self)} faces of {len(people)} people{names}"
        fix = (
            "if these are not people, set data.identity to a regular expression whose group 1 "
            "of a file name is the person; else add more people"
        )
        other = " or take data.protocol=identity" if protocol == "official" else ""
        return f"{what}: {found}; {fix}{other}"


class Source(ABC):
    """Provide labelled faces.

    Args:
        root: the folder that holds them.
        protocol: the rule that splits them, see `FaceTable.split_indices`.
        markup: the meaning of the points.
        on_bad: `stop` refuses to train while a row is bad; `skip` leaves bad rows out and counts
            them.
        folds: number of folds of a cross-validation by person; None for the protocol's splits.
        fold: the fold that is tested on, from 0, or `all`, see `fkp.data.folds.fold_indices`.
    """

    root: Path
    protocol: str
    on_bad: OnBad = "stop"
    folds: int | None = None
    fold: int | Literal["all"] | None = None
    _markup: Markup | None = None

    @property
    def markup(self) -> Markup:
        """Return the meaning of the points; it may have to be read from the files of labels."""
        if self._markup is None:
            self._markup = self.read_markup()
        return self._markup

    @markup.setter
    def markup(self, markup: Markup) -> None:
        """Set the meaning of the points, or complete it by what was measured."""
        self._markup = markup

    def read_markup(self) -> Markup:
        """Read the markup from the files of labels, for a source that is not told it."""
        raise NotImplementedError

    @abstractmethod
    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """Return the faces whose label and file exist, and a fault for every other row."""

    def read(self) -> FaceTable:
        """Read the faces.

        Raises:
            FkpError: bad rows, all of them named, unless on_bad is `skip`.
        """
        table, faults = self.survey()
        self.answer(faults, len(table))
        return table

    def split(self, table: FaceTable) -> dict[str, FaceTable]:
        """Split faces of this source into train, val and test, by `split_indices`."""
        return {name: table.select(chosen) for name, chosen in self.split_indices(table).items()}

    def split_indices(self, table: FaceTable) -> dict[str, np.ndarray]:
        """Return the indices of the faces in train, val and test: of a fold, or by the protocol.

        Raises:
            FkpError: a fold without folds, folds of another protocol than `identity`, or a split
                that would be empty.
        """
        if self.folds is None:
            if self.fold is not None:
                hint = "add data.folds=5"
                raise FkpError(f"data.fold={self.fold}: of how many? {hint}", key="data.folds")
            return table.split_indices(self.protocol)
        if self.protocol != "identity":
            hint = "take data.protocol=identity"
            raise FkpError(
                f"data.folds={self.folds}: folds divide all faces by person, which contradicts "
                f"data.protocol={self.protocol}; {hint}",
                key="data.protocol",
                hint=hint,
            )
        return fold_indices(table.identity, table.official != EXTRA, self.folds, self.fold)

    def answer(self, faults: Sequence[Fault], good: int, show: int = 20) -> None:
        """Refuse bad rows in one error, or log a warning if they are to be skipped.

        Args:
            faults: the bad rows.
            good: number of the other rows.
            show: bad rows that the message names; the rest is counted.

        Raises:
            FkpError: there are bad rows, and on_bad is `stop`.
        """
        if not faults:
            return

        lines = [str(fault) for fault in faults[:show]]
        if len(faults) > show:
            lines.append(f"… and {len(faults) - show} more; python -m fkp.doctor lists them all")
        listed = "\n  ".join(lines)

        if self.on_bad != "skip":
            fix = "Correct them, or set data.on_bad=skip."
            raise FkpError(f"{len(faults)} bad rows, {good} good ones:\n  {listed}\n{fix}")
        message = "data.on_bad=skip: %d bad rows left out, %d faces kept:\n  %s"
        log.warning(message, len(faults), good, listed)


@cache  # Once: a table is split several times before a training.
def _warn_of_ranks(protocol: str, people: int) -> None:
    """Log a warning that the split of a person depends on the other people of the table."""
    log.warning(
        "data.protocol=%s: a hash of the names would leave a split empty, so the %d people are "
        "split in the order of their hashes: the split of a person depends on the other people "
        "in the table",
        protocol,
        people,
    )


def label_sums(points: np.ndarray) -> list[int]:
    """Return a checksum of each label (F, K, 2), to tenths of a pixel."""
    rounded = np.round(10 * np.nan_to_num(points, nan=FAR)).astype("<i4")
    return [zlib.crc32(face.tobytes()) for face in rounded]


def evenly_spaced(total: int, count: int) -> np.ndarray:
    """Return at most `count` indices below `total`, evenly spaced, the first and last among them.

    >>> evenly_spaced(10, 4).tolist(), evenly_spaced(2, 4).tolist()
    ([0, 3, 6, 9], [0, 1])
    """
    return np.unique(np.linspace(0, total - 1, count).astype(int)) if total else np.zeros(0, int)
