"""One table of labelled faces, what every source of them is, and the rule that splits them."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from fkp.columns import Texts, joined, taken
from fkp.errors import FkpError
from fkp.markup import Markup

SPLITS = ("official", "identity", "strict")
PARTS = ("train", "val", "test")
# Shares of people in each part; the part of a person is a hash of the name, so the same on every machine.
TEST_SHARE, VAL_SHARE = 0.15, 0.15
FAR = 1 << 20  # pixels, from the corner of a picture: none that OpenCV reads is so long
SHOWN = 3  # people that a message names
LONG = 500  # letters of what is wrong with a row, which may be most of what it says
OnBad = Literal["stop", "skip"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fault:
    """Why one row cannot be used.

    Args:
        row: where it was read from, `file:row`.
        what: what is wrong with it.
    """

    row: str
    what: str

    def __str__(self) -> str:
        return f"{self.row}: {self.what if len(self.what) <= LONG else self.what[:LONG] + '…'}"


class FaceTable:
    """F labelled faces, a column each of what is known of them. Large columns lie in files, not in memory.

    Args:
        paths: F picture files.
        points: (F, K, 2) float64, IMAGE pixels; NaN where a point is not labelled.
        identity: F names of people; faces of one name never fall into different parts.
        rows: F places the labels were read from, `file:row`, for messages.
        official: F names of the publisher's part, "train" or "test"; all "train" if not given.
        boxes: (F, 4) face boxes, IMAGE pixels; NaN, or None for all, where they are to be drawn round the points.
        weights: (F,) how often an epoch shows each face; all 1 if not given.
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
        """The faces at these indices (or where this mask is true); those of a slice share memory with these."""
        return FaceTable(**{name: taken(column, chosen) for name, column in vars(self).items()})

    @staticmethod
    def joined(tables: Iterable[FaceTable]) -> FaceTable:
        """One table of all faces, in order; each may be made when its turn comes."""
        return FaceTable(**joined(map(vars, tables)))

    def split(self, rule: str) -> dict[str, FaceTable]:
        """Cut into train, val and test, by `parts`."""
        return {name: self.select(chosen) for name, chosen in self.parts(rule).items()}

    def parts(self, rule: str) -> dict[str, np.ndarray]:
        """The indices of the faces in train, val and test.

        `identity`: all faces pooled, people never shared between parts. `official`: the publisher's test part is
        test, whoever is in it; validation is cut from the rest by identity. `strict`: as identity, but of the
        publisher's test faces those of people in train or val are in no part, so that one model can be scored both
        on people never seen and on the publisher's test faces.

        Raises:
            FkpError: unknown rule, or a part that would be empty.
        """
        if rule not in SPLITS:
            raise FkpError(f"data.split={rule}: no such rule; there is {', '.join(SPLITS)}")
        place = np.fromiter(map(_place, self.identity), float, len(self))
        parts = self._parts(rule, place)
        if not all(mask.any() for mask in parts.values()):
            # Few people, or people whom such a hash has chosen: their order by the hash tells as well.
            _, rank = np.unique(place, return_inverse=True)
            parts = self._parts(rule, (rank + 0.5) / max(1, rank.max(initial=0) + 1))
            if empty := [name for name, mask in parts.items() if not mask.any()]:
                raise FkpError(self._too_few(rule, empty))
            _warn_of_ranks(rule, int(rank.max()) + 1)
        return {name: np.flatnonzero(mask) for name, mask in parts.items()}

    def _parts(self, rule: str, place: np.ndarray) -> dict[str, np.ndarray]:
        """(F,) bool for each part, where `place` (F,) in [0, 1) is that of each face's person."""
        official = self.official == "test"
        test = official if rule == "official" else place < TEST_SHARE
        val = ~test & (place >= TEST_SHARE) & (place < TEST_SHARE + VAL_SHARE)
        left_out = official & (rule == "strict")
        return {"train": ~test & ~val & ~left_out, "val": val & ~left_out, "test": test}

    def _too_few(self, rule: str, empty: list[str]) -> str:
        """That a rule leaves no face for some parts, and who the people are that it knows."""
        people = Counter(self.identity).most_common()
        shown = ", ".join([*(f"{name!r} ({count} faces)" for name, count in people[:SHOWN]), "…"][: len(people)])
        told = f"data.split={rule} leaves no face for {' and '.join(empty)}: {len(self)} faces of {len(people)} people"
        told += f" ({shown})" if people else ""
        told += "; if these are not people, set data.identity to a regular expression whose group 1 of a file name is "
        told += "the person; else bring more people"
        return told + (" or take data.split=identity" if rule == "official" else "")


class Source(ABC):
    """Where labelled faces come from.

    Args:
        root: the folder they lie in.
        split: the rule of `FaceTable.split`.
        markup: the meaning of the points.
        on_bad: `stop` refuses to train while any row is bad, `skip` leaves bad rows out and counts them.
    """

    root: Path
    split: str
    markup: Markup
    on_bad: OnBad = "stop"

    @abstractmethod
    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """The faces whose labels and files are there, and what is wrong with every other row."""

    def read(self) -> FaceTable:
        """The faces.

        Raises:
            FkpError: bad rows, all of them named, unless on_bad is `skip`.
        """
        table, faults = self.survey()
        self.answer(faults, len(table))
        return table

    def answer(self, faults: Sequence[Fault], good: int, show: int = 20) -> None:
        """Stop for bad rows with one error that names them (the first `show`, the rest counted), or say how many were
        left out."""
        if not faults:
            return
        more = [f"… and {len(faults) - show} more; python -m fkp.doctor lists them all"] if len(faults) > show else []
        listed = "\n  ".join([*map(str, faults[:show]), *more])
        if self.on_bad == "skip":
            log.warning("data.on_bad=skip: %d bad rows left out, %d faces kept:\n  %s", len(faults), good, listed)
            return
        raise FkpError(f"{len(faults)} bad rows, {good} good ones:\n  {listed}\nMend them, or set data.on_bad=skip.")


@cache
def _warn_of_ranks(rule: str, people: int) -> None:
    """Once: a table is split more than once on the way to a training."""
    log.warning(
        "data.split=%s: the hash of the names would leave a part empty, so the %d people are split by its order:"
        " the part of a person depends on who else is in the table",
        rule,
        people,
    )


def _place(identity: str) -> float:
    """A number in [0, 1) that depends on nothing but the name."""
    return int.from_bytes(hashlib.sha256(identity.encode(errors="surrogatepass")).digest()[:8], "big") / 2**64
