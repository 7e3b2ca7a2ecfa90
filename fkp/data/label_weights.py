"""Weigh faces: by a column `weight`, or by how far several teachers disagree about their labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fkp.data.csv_labels import UNLABELLED
from fkp.data.csv_reader import open_csv
from fkp.errors import FkpError

COLUMN = "column"  # instead of a file's name: the spreads stand in the labels themselves
LARGEST = 100.0  # weight of a face: an epoch shows it at most so often
STEPS = 4  # weights are multiples of 1 / STEPS: sampling groups the faces of equal weight


def in_quarters(weights: np.ndarray) -> np.ndarray:
    """Round weights (F,) to quarters, a positive one to at least a quarter.

    >>> in_quarters(np.array([0, 0.01, 0.6, 0.9, 2])).tolist()
    [0.0, 0.25, 0.5, 1.0, 2.0]
    """
    return np.where(weights > 0, np.maximum(np.round(STEPS * weights), 1) / STEPS, 0)


def of_spread(spread: np.ndarray, full: float) -> np.ndarray:
    """Compute weights from the teachers' disagreement.

    weight = min(1, (full / spread)^2), in quarters: the square, as errors of a spread s have the
    variance s^2, and the best weight of a measurement is the inverse of its variance.

    Args:
        spread: (F,), at least 0, in any unit; NaN where there is none, as for labels by hand: 1.
        full: the spread up to which a face has its full weight, in the same unit.

    >>> of_spread(np.array([0, 1, 1.4, 5, np.nan]), full=1.0).tolist()
    [1.0, 1.0, 0.5, 0.25, 1.0]
    """
    ratio = full / np.maximum(np.nan_to_num(spread), full)
    return in_quarters(ratio**2)


@dataclass
class Weights:
    """The weights of n rows.

    Args:
        values: (n,) how often an epoch shows each face.
        faults: for each row that cannot be used, what is wrong with it.
    """

    values: np.ndarray
    faults: dict[int, str]


def weigh(
    weights: np.ndarray, spreads: np.ndarray, cells: dict[str, list[str]], full: float
) -> Weights:
    """Weigh n rows by their columns `weight` and `spread`.

    Args:
        weights, spreads: (n,) the numbers in these columns; NaN in cells that are no numbers.
        cells: the text of these columns, by their names; without those that are not read.
        full: the spread up to which a face has its full weight.
    """
    faults: dict[int, str] = {}
    for name, numbers, most in (("weight", weights, LARGEST), ("spread", spreads, np.inf)):
        for i, cell in enumerate(cells.get(name, [])):
            empty = cell.strip() in UNLABELLED
            if not (empty or 0 <= numbers[i] <= most):
                limit = f" to {most:g}" if np.isfinite(most) else ""
                faults[i] = f"{name} {cell.strip()[:40]!r} is not a number from 0{limit}"
    given = in_quarters(np.where(np.isnan(weights), 1, weights))
    return Weights(given * of_spread(spreads, full), faults)


def read_spreads(file: Path) -> dict[str, str]:
    """Read a CSV with the columns `file` and `spread`: name of an image -> its spread, as text.

    Raises:
        FkpError: it is missing or no CSV, has other columns, or two spreads for one image.
    """
    if not file.exists():
        hint = f"data.spread names a file beside the labels, or {COLUMN}: their own column `spread`"
        raise FkpError(f"{file}: no such file; {hint}", key="data.spread", file=file, hint=hint)

    spreads: dict[str, str] = {}
    with open_csv(file) as table:
        names = [name.lower() for name in table.header]
        if missing := [name for name in ("file", "spread") if name not in names]:
            what = f"{file}: has no column {' and '.join(missing)}"
            raise FkpError(what, key="data.spread", file=file)
        image, spread = names.index("file"), names.index("spread")
        for block in table.blocks():
            for row in block:
                cells = [*row.cells, *[""] * (len(names) - len(row.cells))]
                name, value = cells[image].strip(), cells[spread].strip()
                if spreads.setdefault(name, value) != value:
                    what = f"{file}:{row.line}: a second spread for {name}, {value}"
                    raise FkpError(what, key="data.spread", file=file, row=row.line)
    return spreads
