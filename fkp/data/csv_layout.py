"""Detect what the columns of a table mean, and convert its cells to numbers."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from fkp.data.csv_reader import is_image, is_number
from fkp.data.point_columns import check_names, named_slots, slots_in_order
from fkp.errors import FkpError
from fkp.markup import Markup

BOX = ["box_left", "box_top", "box_right", "box_bottom"]
# Columns that say how sure labels are: predict.py adds the first two to its tables, which can be
# read as labels once they are corrected; `spread` is the disagreement of several teachers.
PREDICTED = ["score", "confidence"]
WEIGHTS = ["weight", "spread"]
# Names, in lower case, of the column of file names, of row numbers, and of no meaning.
IMAGE = re.compile(r"(image|img|file|picture|photo|frame)?[ _-]?(file)?[ _-]?(name|path|id)?")
INDEX = re.compile(r"|#|index|id|no\.?|nr\.?|row|unnamed: .*|level_0")
UNNAMED = re.compile(r"|unnamed: .*")
# Columns of a table, at most.
COLUMNS = 1 << 14

# Numbers with a decimal comma, and with commas that may separate thousands.
COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")
THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")


@dataclass
class Layout:
    """The meaning of the columns of a table.

    Args:
        header: whether the first row names the columns.
        width: number of cells in a row.
        image: the column of file names.
        points: the columns of coordinates, in the order of the file.
        slots: for each of them its point, and its axis, 0 or 1.
        boxes: the columns of the face box, left, top, right, bottom; empty if there is none.
        identity: the column of people, if there is one.
        weights: the columns `weight` and `spread`, by their names, if there are any.
        empty: columns that are left out because they are empty in the first rows.
        decimal: `.` or `,`, once a number with either has been read.
    """

    header: bool
    width: int
    image: int
    points: list[int]
    slots: tuple[list[int], list[int]]
    boxes: list[int]
    identity: int | None
    weights: dict[str, int] = field(default_factory=dict)
    empty: set[int] = field(default_factory=set)
    decimal: str = ""

    def fit(self, cells: list[str]) -> list[str]:
        """Return a row without empty cells beyond the last column, and with empty columns added.

        The result has another number of cells than `width` if that is not enough.
        """
        while len(cells) > self.width and not cells[-1].strip():
            cells = cells[:-1]
        missing = set(range(len(cells), self.width))
        return cells + [""] * len(missing) if missing <= self.empty else cells

    def misfit(self, cells: list[str]) -> str:
        """Say what is wrong with a row of another number of cells."""
        first = "header" if self.header else "first row"
        what = f"{len(cells)} cells, but the {first} has {self.width}"

        # One more cell for each coordinate: the commas separate decimals as well as cells.
        if 1 < len(self.points) == len(cells) - self.width:
            what += "; write decimal points, or separate cells by semicolons"
        return what

    def numbers(self, file: Path, cells: np.ndarray) -> np.ndarray:
        """Convert cells to numbers.

        Args:
            file: for messages.
            cells: (n, m), text.

        Returns:
            (n, m), float; NaN for a cell that is not a number, or has another decimal sign than
            those before it.

        Raises:
            FkpError: commas that may separate thousands or decimals.
        """
        flat = cells.ravel()
        if "," in "".join(flat):
            flat = self._with_decimal_points(file, flat)
        elif not self.decimal and any("." in cell and is_number(cell) for cell in flat):
            self.decimal = "."
        return np.asarray(pd.to_numeric(flat, errors="coerce"), float).reshape(cells.shape)

    def _with_decimal_points(self, file: Path, flat: np.ndarray) -> np.ndarray:
        """Replace decimal commas by points, in cells (n m) of which some have commas."""
        commas = np.array([COMMA.fullmatch(cell) is not None for cell in flat], bool)
        points = np.array(["." in cell and is_number(cell) for cell in flat], bool)

        if not self.decimal:
            _refuse_thousands(file, flat, commas)
            if commas.any() or points.any():
                self.decimal = "," if commas.sum() > points.sum() else "."
        if self.decimal != ",":
            return flat

        # Numbers with points become text, which is reported as not a number.
        flat = np.where(points, "mixed", flat)
        flat[commas] = [cell.replace(",", ".") for cell in flat[commas]]
        return flat


def _refuse_thousands(file: Path, flat: np.ndarray, commas: np.ndarray) -> None:
    """Raise an FkpError if the commas may as well separate thousands."""
    whole = any(cell.isdecimal() and cell.strip("0") for cell in flat)
    if commas.any() and whole and all(THOUSANDS.fullmatch(cell) for cell in flat[commas]):
        raise FkpError(
            f"{file}: in {flat[commas][0]!r} the comma may separate thousands or decimals; write "
            "numbers with a point"
        )


def find_layout(file: Path, header: list[str], sample: list[list[str]], markup: Markup) -> Layout:
    """Detect the meaning of columns by their names and the first rows.

    Args:
        file: for messages.
        header: names of the columns; empty if the file has none.
        sample: cells of some rows.
        markup: the meaning of the points.

    Raises:
        FkpError: too many columns, a box without all four sides, or coordinates that do not fit
            the markup.
    """
    width = len(header) or Counter(map(len, sample)).most_common(1)[0][0]
    if width > COLUMNS:
        raise FkpError(f"{file}: {width} columns, more than the {COLUMNS} that fkp reads")
    columns = [[cells[i].strip() for cells in sample if i < len(cells)] for i in range(width)]

    # Columns with fixed names.
    small = [name.lower() for name in header] or [""] * width
    fixed = ("identity", *BOX, *PREDICTED, *WEIGHTS)
    place = {name: small.index(name) for name in fixed if name in small}
    if 0 < sum(name in place for name in BOX) < 4:
        raise FkpError(f"{file}: a box needs the four columns {', '.join(BOX)}")

    # The column of file names, and those before it that number the rows.
    slots = named_slots(file, header, markup)
    free = [i for i in range(width) if i not in place.values() and i not in slots]
    image = _image_column(small, columns, free)
    index = [i for i in free if i < image and _is_index(bool(header), small[i], columns[i])]

    # The rest are coordinates, without empty columns.
    known = {image, *place.values(), *index}
    rest = [i for i in range(width) if i not in known]
    empty = _empty_columns(small, columns, rest, None if slots else 2 * len(markup.points))
    rest = [i for i in rest if i not in empty]
    if slots:
        check_names(file, header, rest, slots, markup)
    else:
        slots = slots_in_order(file, header, rest, width, markup)

    return Layout(
        header=bool(header),
        width=width,
        image=image,
        points=rest,
        slots=([slots[i][0] for i in rest], [slots[i][1] for i in rest]),
        boxes=[place[name] for name in BOX if name in place],
        identity=place.get("identity"),
        weights={name: place[name] for name in WEIGHTS if name in place},
        empty=empty,
    )


def _image_column(small: list[str], columns: list[list[str]], free: list[int]) -> int:
    """Return the column with the most names of images.

    At a tie: one with a name for it, one without numbers, the first.
    """

    def likelihood(i: int) -> tuple[int, bool, bool, int]:
        has_name = bool(small[i]) and IMAGE.fullmatch(small[i]) is not None
        words = all(cell and not is_number(cell) for cell in columns[i])
        return sum(map(is_image, columns[i])), has_name, words, -i

    return max(free, key=likelihood, default=0)


def _is_index(has_header: bool, small: str, column: list[str]) -> bool:
    """Return whether a column before the file names numbers the rows."""
    whole = [int(cell) for cell in column if cell.isdecimal() and len(cell) < 19]
    if len(whole) != len(column):
        return False
    if has_header:
        return INDEX.fullmatch(small) is not None
    return len(whole) > 1 and all(b == a + 1 for a, b in zip(whole, whole[1:], strict=False))


def _empty_columns(
    small: list[str], columns: list[list[str]], rest: list[int], needed: int | None
) -> set[int]:
    """Return the columns without name and content in the first rows.

    Args:
        small: names of the columns, lower case.
        columns: cells of the first rows.
        rest: the columns in question.
        needed: how many of them must stay, as a point may have no label in all first rows; None if
            coordinates are recognised by name.
    """
    blank = [i for i in rest if UNNAMED.fullmatch(small[i]) and not any(columns[i])]
    if needed is not None:
        surplus = max(0, len(rest) - needed)
        blank = blank[max(0, len(blank) - surplus) :]
    return set(blank)
