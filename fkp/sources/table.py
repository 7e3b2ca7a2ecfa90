"""One table of labelled faces, the CSV layout it is read from, and the rule that splits it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fkp.errors import FkpError
from fkp.markup import Markup

SPLITS = ("official", "identity")
PARTS = ("train", "val", "test")
# Shares of people in each part; the part of a person is a hash of the name, so the same on every machine.
TEST_SHARE, VAL_SHARE = 0.15, 0.15


@dataclass(frozen=True)
class FaceTable:
    """F labelled faces.

    Args:
        paths: F picture files.
        points: (F, K, 2) float64, IMAGE pixels; NaN where a point is not labelled.
        identity: F names of people; faces of one name never fall into different parts.
        official: F names of the publisher's part, "train" or "test".
        rows: F places the labels were read from, `file:row`, for messages.
    """

    paths: list[Path]
    points: np.ndarray
    identity: list[str]
    official: list[str]
    rows: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, chosen: np.ndarray) -> FaceTable:
        """The faces at these indices (or where this mask is true)."""
        index = np.arange(len(self))[chosen]
        return FaceTable(
            [self.paths[i] for i in index],
            self.points[index],
            [self.identity[i] for i in index],
            [self.official[i] for i in index],
            [self.rows[i] for i in index],
        )

    @staticmethod
    def joined(tables: Sequence[FaceTable]) -> FaceTable:
        """One table of all faces, in order."""
        return FaceTable(
            sum((t.paths for t in tables), []),
            np.concatenate([t.points for t in tables]),
            sum((t.identity for t in tables), []),
            sum((t.official for t in tables), []),
            sum((t.rows for t in tables), []),
        )

    def split(self, rule: str) -> dict[str, FaceTable]:
        """Cut into train, val and test.

        `identity`: all faces pooled, people never shared between parts. `official`: the publisher's test part is
        test, whoever is in it; validation is cut from the rest by identity.

        Raises:
            FkpError: unknown rule, or a part that would be empty.
        """
        if rule not in SPLITS:
            raise FkpError(f"data.split={rule}: no such rule; there is {' and '.join(SPLITS)}")
        place = np.array([_place(name) for name in self.identity])
        official = np.array([part == "test" for part in self.official])
        test = official if rule == "official" else place < TEST_SHARE
        val = ~test & (place >= TEST_SHARE) & (place < TEST_SHARE + VAL_SHARE)
        parts = {"train": ~test & ~val, "val": val, "test": test}
        empty = [name for name, mask in parts.items() if not mask.any()]
        if empty:
            raise FkpError(
                f"data.split={rule} leaves no face for {' and '.join(empty)}: {len(self)} faces of "
                f"{len(set(self.identity))} people; bring more people"
                + (" or take data.split=identity" if rule == "official" else "")
            )
        return {name: self.select(mask) for name, mask in parts.items()}


def _place(identity: str) -> float:
    """A number in [0, 1) that depends on nothing but the name."""
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") / 2**64


def read_csv(file: Path, images: Path, markup: Markup, identity: str, official: str = "train") -> FaceTable:
    """Read the published layout: a file name, then `x0, y0, x1, y1, …` in IMAGE pixels, one row a face.

    Args:
        file: the CSV file; its header line is not used.
        images: the folder its file names are relative to.
        markup: says how many points a row must have.
        identity: a regular expression; its group 1 of the file name is the person.
        official: the publisher's part these faces belong to.

    Raises:
        FkpError: no such file or not a CSV; or bad rows, all of them named.
    """
    try:
        frame = pd.read_csv(file, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise FkpError(f"{file}: no such file; data.root must name the folder that holds it") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise FkpError(f"{file}: not a CSV of key points ({error})") from None
    wanted = 2 * len(markup.points)
    if frame.shape[1] != wanted + 1:
        raise FkpError(
            f"{file}: {frame.shape[1]} columns, but {markup.name} needs {wanted + 1}: "
            f"a file name and {len(markup.points)} pairs of x, y"
        )
    names = frame.iloc[:, 0].tolist()
    rows = [f"{file.name}:{row}" for row in range(2, len(names) + 2)]
    numbers = frame.iloc[:, 1:].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    unlabelled = frame.iloc[:, 1:].isin(["", "nan", "NaN"]).to_numpy()
    faults = []
    for i, name in enumerate(names):
        if not (images / name).is_file():
            faults.append(f"{rows[i]}: no picture {images / name}")
        elif (np.isnan(numbers[i]) & ~unlabelled[i]).any() or np.isinf(numbers[i]).any():
            column = int(np.flatnonzero(~np.isfinite(numbers[i]) & ~unlabelled[i])[0])
            faults.append(f"{rows[i]}: {frame.iloc[i, column + 1]!r} in column {column + 2} is not a number")
        elif unlabelled[i].all():
            faults.append(f"{rows[i]}: no point is labelled")
    refuse(faults, file)
    people = re.compile(identity)
    return FaceTable(
        [images / name for name in names],
        numbers.reshape(len(names), -1, 2),
        [match.group(1) if (match := people.match(name)) else name for name in names],
        [official] * len(names),
        rows,
    )


def refuse(faults: Sequence[str], what: object, show: int = 20) -> None:
    """Raise one error that names every bad row (the first `show` in words, the rest counted)."""
    if faults:
        more = [f"… and {len(faults) - show} more"] if len(faults) > show else []
        raise FkpError("\n  ".join([f"{what}: {len(faults)} bad rows", *faults[:show], *more]))


def write_csv(file: Path, names: Iterable[str], points: np.ndarray) -> None:
    """Write the published layout; `read_csv` reads it back."""
    flat = points.reshape(len(points), -1)
    frame = pd.DataFrame(flat, columns=[str(i) for i in range(flat.shape[1])])
    frame.insert(0, "", list(names))
    frame.to_csv(file, index=False, float_format="%.3f")
