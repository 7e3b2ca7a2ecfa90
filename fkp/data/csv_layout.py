"""Tell what the columns of a table are, and read its cells as numbers."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from fkp.data.csv_reader import is_image, is_number
from fkp.errors import FkpError
from fkp.markup import Markup

BOX = ["box_left", "box_top", "box_right", "box_bottom"]
PREDICTED = [
    "score",
    "confidence",
]  # in the tables of predict.py, which are labels once they have been looked through
IMAGE = re.compile(
    r"(image|img|file|picture|photo|frame)?[ _-]?(file)?[ _-]?(name|path|id)?"
)  # in small letters
INDEX = re.compile(r"|#|index|id|no\.?|nr\.?|row|unnamed: .*|level_0")
UNNAMED = re.compile(r"|unnamed: .*")
COLUMNS = 1 << 14  # at most
SHOWN = 10  # columns that are not known
Slot = tuple[int, int]  # a point, and its axis, 0 or 1
UNKNOWN = (-1, 0)
# How a column is named after a point and an axis, and the groups of both.
AXES = [
    (re.compile(r"(?s)(.*?[^\W_])[\W_]+([xyXY])"), 1, 2),
    (re.compile(r"(.*[a-z0-9])([XY])"), 1, 2),
]
AXES += [(re.compile(r"(.*[0-9])([xy])"), 1, 2), (re.compile(r"([xyXY])[\W_]+(.+)"), 2, 1)]
AXES += [(re.compile(r"([xyXY])([0-9]+)"), 2, 1)]
NUMBERED = re.compile(r"(.*?)([0-9]{1,9})")
LONG = 1100  # letters of a name, beyond which it is the name of no point
COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")
THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")


@dataclass
class Layout:
    """The columns of a table.

    Args:
        header: whether the first row names the columns.
        width: cells of a row.
        image: the column of file names.
        points: the columns of coordinates, in the order of the file.
        slots: for each of them its point and its axis, 0 or 1.
        boxes: the columns of the face box, left, top, right, bottom; empty if there is none.
        identity: the column of people, if there is one.
        empty: columns that are left out because they were seen to be empty.
        decimal: `.` or `,`, once a number with either has been read.
    """

    header: bool
    width: int
    image: int
    points: list[int]
    slots: tuple[list[int], list[int]]
    boxes: list[int]
    identity: int | None
    empty: set[int] = field(default_factory=set)
    decimal: str = ""

    def fit(self, cells: list[str]) -> list[str]:
        """The cells of a row without empty ones beyond the last column, and with those of empty columns."""
        while len(cells) > self.width and not cells[-1].strip():
            cells = cells[:-1]
        missing = set(range(len(cells), self.width))
        return cells + [""] * len(missing) if missing <= self.empty else cells

    def misfit(self, cells: list[str]) -> str:
        """What is wrong with a row of another number of cells."""
        told = f"{len(cells)} cells, but the {'header' if self.header else 'first row'} has {self.width}"
        both = 1 < len(self.points) == len(cells) - self.width
        return told + ("; write decimal points, or separate cells by semicolons" if both else "")

    def numbers(self, file: Path, cells: np.ndarray) -> np.ndarray:
        """Cells (n, m) of text as numbers; NaN for a cell that is none, or has the decimal sign of another country
        than those before it.

        Raises:
            FkpError: commas that may separate thousands or decimals.
        """
        flat = cells.ravel()
        if "," in "".join(flat):
            flat = self._decimal_points(file, flat)
        elif not self.decimal and any("." in cell and is_number(cell) for cell in flat):
            self.decimal = "."
        return np.asarray(pd.to_numeric(flat, errors="coerce"), float).reshape(cells.shape)

    def _decimal_points(self, file: Path, flat: np.ndarray) -> np.ndarray:
        commas = np.array([COMMA.fullmatch(cell) is not None for cell in flat], bool)
        points = np.array(["." in cell and is_number(cell) for cell in flat], bool)
        whole = [cell for cell in flat if cell.isdecimal() and cell.strip("0")]
        if (
            not self.decimal
            and commas.any()
            and whole
            and all(THOUSANDS.fullmatch(cell) for cell in flat[commas])
        ):
            told = f"in {flat[commas][0]!r} the comma may separate thousands or decimals; write numbers with a point"
            raise FkpError(f"{file}: {told}")
        if not self.decimal and (commas.any() or points.any()):
            self.decimal = "," if commas.sum() > points.sum() else "."
        if self.decimal != ",":
            return flat
        flat = np.where(points, "mixed", flat)
        flat[commas] = [cell.replace(",", ".") for cell in flat[commas]]
        return flat


def find_layout(file: Path, header: list[str], sample: list[list[str]], markup: Markup) -> Layout:
    """Tell the columns by their names, and by the first rows.

    Args:
        file: for messages.
        header: names of the columns; empty if the file has none.
        sample: cells of some rows.
        markup: whose points the coordinates are.

    Raises:
        FkpError: a box without all four sides, or coordinates that do not fit the markup.
    """
    width = len(header) or Counter(map(len, sample)).most_common(1)[0][0]
    if width > COLUMNS:
        raise FkpError(f"{file}: {width} columns, more than the {COLUMNS} that fkp reads")
    columns = [[cells[i].strip() for cells in sample if i < len(cells)] for i in range(width)]
    small = [name.lower() for name in header] or [""] * width
    place = {name: small.index(name) for name in ("identity", *BOX, *PREDICTED) if name in small}
    if 0 < sum(name in place for name in BOX) < 4:
        raise FkpError(f"{file}: a box needs the four columns {', '.join(BOX)}")

    slots = _named_slots(file, header, markup)
    named = bool(slots)
    free = [i for i in range(width) if i not in place.values() and i not in slots]
    image = _image_column(small, columns, free)
    index = [i for i in free if i < image and _is_index(header, small[i], columns[i])]
    known = {image, *place.values(), *index}
    rest = [i for i in range(width) if i not in known]

    blank = [i for i in rest if UNNAMED.fullmatch(small[i]) and not any(columns[i])]
    if not named:  # a point may be labelled nowhere in the first rows: no more columns are left out than need be
        blank = blank[max(0, len(blank) - max(0, len(rest) - 2 * len(markup.points))) :]
    empty = set(blank)
    rest = [i for i in rest if i not in empty]
    if named:
        _check_names(file, header, rest, slots, markup)
    else:
        slots = _slots_in_order(file, header, rest, width, markup)
    points, axes = [slots[i][0] for i in rest], [slots[i][1] for i in rest]
    boxes = [place[name] for name in BOX if name in place]
    return Layout(
        bool(header), width, image, rest, (points, axes), boxes, place.get("identity"), empty
    )


def _image_column(small: list[str], columns: list[list[str]], free: list[int]) -> int:
    """The column with the most names of images; at a tie the one that is called so, one of words, the first."""

    def likely(i: int) -> tuple[int, bool, bool, int]:
        called = bool(small[i]) and IMAGE.fullmatch(small[i]) is not None
        words = all(cell and not is_number(cell) for cell in columns[i])
        return sum(map(is_image, columns[i])), called, words, -i

    return max(free, key=likely, default=0)


def _is_index(header: list[str], small: str, column: list[str]) -> bool:
    """Whether a column left of the file names counts the rows."""
    whole = [int(cell) for cell in column if cell.isdecimal() and len(cell) < 19]
    if header and not INDEX.fullmatch(small) or len(whole) != len(column):
        return False
    return bool(header) or (
        len(whole) > 1 and all(b == a + 1 for a, b in zip(whole, whole[1:], strict=False))
    )


def _slots_in_order(
    file: Path, header: list[str], columns: list[int], width: int, markup: Markup
) -> dict[int, Slot]:
    """Point and axis of columns that are x, y of each point in the markup's order."""
    count = len(markup.points)
    if len(columns) != 2 * count:
        told = f"{width} columns, but {markup.name} needs {width - len(columns) + 2 * count}: a file name and {count} "
        told += "pairs of x, y" + ("" if header else "; the first row is data, not a header")
        raise FkpError(f"{file}: {told}; name columns after points (…_x, …_y) if some are missing")
    axes = [header[i].lower() for i in columns] if header else []
    if axes and set(axes) <= {"x", "y"} and axes != ["x", "y"] * count:
        raise FkpError(
            f"{file}: columns called x and y must take turns, x first; or name them after points, …_x, …_y"
        )
    return {column: (i // 2, i % 2) for i, column in enumerate(columns)}


def _axis(name: str) -> tuple[str, str]:
    """The point and the axis that a column is called by: eye_left_x, "Eye left X", eyeLeftX, x_eye_left, x7; or
    nothing. Of several columns called x, pandas calls the second x.1.

    >>> _axis("eye_left_x"), _axis("x7"), _axis("index")
    (('eye_left', 'x'), ('7', 'x'), ('', ''))
    """
    for pattern, point, axis in AXES if len(name) < LONG else ():
        if found := pattern.fullmatch(name):
            return found[point], found[axis].lower()
    return ("0", name.lower()) if name.lower() in ("x", "y") else ("", "")


def _named_slots(file: Path, header: list[str], markup: Markup) -> dict[int, Slot]:
    """Point and axis of each column that is named after them; none if columns are not.

    Names are the markup's without regard to letter case, blanks and punctuation; or all points have numbers, from 0
    or 1, in the markup's order.
    """
    called = {i: axis for i, name in enumerate(header) if (axis := _axis(name))[1]}
    if all(len(header[i]) == 1 for i in called):  # x, y, x, y, …
        return {}
    points = {_plain(point): k for k, point in enumerate(markup.points)}
    if len(points) < len(markup.points):
        points = {point: k for k, point in enumerate(markup.points)}
    found = {i: points.get(stem, points.get(_plain(stem))) for i, (stem, _) in called.items()}
    numbers = {i: number for i, (stem, _) in called.items() if (number := NUMBERED.fullmatch(stem))}
    if set(found.values()) == {None} and len({number[1] for number in numbers.values()}) == 1:
        whole = {i: int(number[2]) for i, number in numbers.items()}
        first, last, count = min(whole.values()), max(whole.values()), len(markup.points)
        if first > 1 or last - first + 1 != count:
            told = f"columns number points {first} to {last}, as {header[min(whole)]:.40}, but {markup.name} has {count}"
            raise FkpError(
                f"{file}: {told}: number all from 0 or 1, or name columns after points, …_x, …_y"
            )
        found |= {i: number - first for i, number in whole.items()}
    return {
        i: UNKNOWN if point is None else (point, int(called[i][1] == "y"))
        for i, point in found.items()
    }


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _check_names(
    file: Path, header: list[str], columns: list[int], slots: dict[int, Slot], markup: Markup
) -> None:
    """That columns are named after points, once, and after both axes of each.

    Raises:
        FkpError: the names that are not.
    """
    wanted = [f"{point}_{axis}" for point in markup.points for axis in "xy"]
    times = Counter(slots.values())
    strange = []
    for i in columns:
        if slots.get(i, UNKNOWN) == UNKNOWN or times[slots[i]] > 1:
            name = header[i] or f"column {i + 1}, which has no name,"
            close = difflib.get_close_matches(header[i], wanted, n=1, cutoff=0.6)
            strange.append(
                name + (f" (did you mean {close[0]}?)" if close and close[0] != header[i] else "")
            )
            if len(strange) > SHOWN:  # to look for what was meant takes long
                strange[-1] = "…"
                break
    alone = [
        wanted[2 * k + axis] for k, axis in sorted(times) if k >= 0 and (k, 1 - axis) not in times
    ]
    if strange or alone:
        told = (
            [f"columns that markup {markup.name} does not know, or twice: {', '.join(strange)}"]
            if strange
            else []
        )
        told += [f"columns without their other coordinate: {', '.join(alone)}"] if alone else []
        raise FkpError(
            f"{file}: " + "; ".join(told) + f"; its points are {', '.join(markup.points)}"
        )
