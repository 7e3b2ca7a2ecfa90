"""Detect what the columns of a table mean, and convert its cells to numbers."""

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
# Columns that predict.py adds to its tables, which can be read as labels once they are corrected.
PREDICTED = ["score", "confidence"]
# Names, in lower case, of the column of file names, of row numbers, and of no meaning.
IMAGE = re.compile(r"(image|img|file|picture|photo|frame)?[ _-]?(file)?[ _-]?(name|path|id)?")
INDEX = re.compile(r"|#|index|id|no\.?|nr\.?|row|unnamed: .*|level_0")
UNNAMED = re.compile(r"|unnamed: .*")
# Limits: columns of a table, unknown columns in a message, characters of the name of a point.
COLUMNS, SHOWN, LONG = 1 << 14, 10, 1100

# A point's index, and the axis: 0 for x, 1 for y.
Slot = tuple[int, int]
UNKNOWN = (-1, 0)
# Patterns of a column that is named after a point and an axis, and the groups of both.
AXES = [
    (re.compile(r"(?s)(.*?[^\W_])[\W_]+([xyXY])"), 1, 2),
    (re.compile(r"(.*[a-z0-9])([XY])"), 1, 2),
    (re.compile(r"(.*[0-9])([xy])"), 1, 2),
    (re.compile(r"([xyXY])[\W_]+(.+)"), 2, 1),
    (re.compile(r"([xyXY])([0-9]+)"), 2, 1),
]
# The name of a point that ends in a number: prefix and number.
NUMBERED = re.compile(r"(.*?)([0-9]{1,9})")
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
    place = {name: small.index(name) for name in ("identity", *BOX, *PREDICTED) if name in small}
    if 0 < sum(name in place for name in BOX) < 4:
        raise FkpError(f"{file}: a box needs the four columns {', '.join(BOX)}")

    # The column of file names, and those before it that number the rows.
    slots = _named_slots(file, header, markup)
    free = [i for i in range(width) if i not in place.values() and i not in slots]
    image = _image_column(small, columns, free)
    index = [i for i in free if i < image and _is_index(bool(header), small[i], columns[i])]

    # The rest are coordinates, without empty columns.
    known = {image, *place.values(), *index}
    rest = [i for i in range(width) if i not in known]
    empty = _empty_columns(small, columns, rest, None if slots else 2 * len(markup.points))
    rest = [i for i in rest if i not in empty]
    if slots:
        _check_names(file, header, rest, slots, markup)
    else:
        slots = _slots_in_order(file, header, rest, width, markup)

    return Layout(
        header=bool(header),
        width=width,
        image=image,
        points=rest,
        slots=([slots[i][0] for i in rest], [slots[i][1] for i in rest]),
        boxes=[place[name] for name in BOX if name in place],
        identity=place.get("identity"),
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


def _slots_in_order(
    file: Path, header: list[str], columns: list[int], width: int, markup: Markup
) -> dict[int, Slot]:
    """Return the slots of columns that are x, y of each point in the markup's order.

    Raises:
        FkpError: another number of columns, or a header that says x and y in another order.
    """
    count = len(markup.points)
    if len(columns) != 2 * count:
        needed = width - len(columns) + 2 * count
        no_header = "" if header else "; the first row is data, not a header"
        raise FkpError(
            f"{file}: {width} columns, but {markup.name} needs {needed}: a file name and {count} "
            f"pairs of x, y{no_header}; name columns after points (…_x, …_y) if some are missing"
        )

    axes = [header[i].lower() for i in columns] if header else []
    if axes and set(axes) <= {"x", "y"} and axes != ["x", "y"] * count:
        raise FkpError(
            f"{file}: columns named x and y must alternate, x first; or name them after points, "
            "…_x, …_y"
        )
    return {column: (i // 2, i % 2) for i, column in enumerate(columns)}


def _axis(name: str) -> tuple[str, str]:
    """Split the name of a column into point and axis.

    Styles: eye_left_x, "Eye left X", eyeLeftX, x_eye_left, x7. Of several columns named x, pandas
    renames the second to x.1.

    Returns:
        point and axis; both empty if the column is named after no axis.

    >>> _axis("eye_left_x"), _axis("x7"), _axis("index")
    (('eye_left', 'x'), ('7', 'x'), ('', ''))
    """
    for pattern, point, axis in AXES if len(name) < LONG else ():
        if found := pattern.fullmatch(name):
            return found[point], found[axis].lower()
    return ("0", name.lower()) if name.lower() in ("x", "y") else ("", "")


def _named_slots(file: Path, header: list[str], markup: Markup) -> dict[int, Slot]:
    """Return the slots of columns that are named after points.

    The names of points are the markup's, except for letter case, blanks and punctuation; or all
    points have numbers, from 0 or 1, in the markup's order.

    Returns:
        column -> slot, `UNKNOWN` for a point that the markup does not have; empty if the columns
        are not named after points.

    Raises:
        FkpError: numbers that do not fit the markup.
    """
    named = {i: axis for i, name in enumerate(header) if (axis := _axis(name))[1]}
    if all(len(header[i]) == 1 for i in named):
        # x, y, x, y, …
        return {}

    # By the markup's names.
    points = {_plain(point): k for k, point in enumerate(markup.points)}
    if len(points) < len(markup.points):
        points = {point: k for k, point in enumerate(markup.points)}
    found = {i: points.get(stem, points.get(_plain(stem))) for i, (stem, _) in named.items()}

    # By numbers, if no name is known.
    numbers = {i: number for i, (stem, _) in named.items() if (number := NUMBERED.fullmatch(stem))}
    if set(found.values()) == {None} and len({number[1] for number in numbers.values()}) == 1:
        found |= _numbered_points(file, header, {i: int(n[2]) for i, n in numbers.items()}, markup)

    return {
        i: UNKNOWN if point is None else (point, int(named[i][1] == "y"))
        for i, point in found.items()
    }


def _numbered_points(
    file: Path, header: list[str], numbers: dict[int, int], markup: Markup
) -> dict[int, int]:
    """Convert numbers of points, column -> number from 0 or 1, to column -> point.

    Raises:
        FkpError: numbers that do not fit the markup.
    """
    first, last, count = min(numbers.values()), max(numbers.values()), len(markup.points)
    if first > 1 or last - first + 1 != count:
        raise FkpError(
            f"{file}: columns number points {first} to {last}, as {header[min(numbers)]:.40}, but "
            f"{markup.name} has {count}: number all from 0 or 1, or name columns after points, "
            "…_x, …_y"
        )
    return {i: number - first for i, number in numbers.items()}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _check_names(
    file: Path, header: list[str], columns: list[int], slots: dict[int, Slot], markup: Markup
) -> None:
    """Check that each column is named after a point, once, and that each point has both axes.

    Raises:
        FkpError: the names of the columns that are not.
    """
    wanted = [f"{point}_{axis}" for point in markup.points for axis in "xy"]
    times = Counter(slots.values())
    problems = []

    wrong = [i for i in columns if slots.get(i, UNKNOWN) == UNKNOWN or times[slots[i]] > 1]
    if wrong:
        # Only of the first, as the search for similar names takes long.
        names = [_with_suggestion(header[i], i, wanted) for i in wrong[:SHOWN]]
        names += ["…"] if len(wrong) > SHOWN else []
        problems.append(
            f"columns that markup {markup.name} does not know, or twice: {', '.join(names)}"
        )

    alone = [
        wanted[2 * point + axis]
        for point, axis in sorted(times)
        if point >= 0 and (point, 1 - axis) not in times
    ]
    if alone:
        problems.append(f"columns without their other coordinate: {', '.join(alone)}")

    if problems:
        raise FkpError(f"{file}: {'; '.join(problems)}; its points are {', '.join(markup.points)}")


def _with_suggestion(name: str, column: int, wanted: list[str]) -> str:
    """Return the name of a column, with the most similar of the wanted names."""
    close = difflib.get_close_matches(name, wanted, n=1, cutoff=0.6)
    shown = name or f"column {column + 1}, which has no name,"
    return shown + (f" (did you mean {close[0]}?)" if close and close[0] != name else "")
