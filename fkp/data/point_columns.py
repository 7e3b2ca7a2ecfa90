"""Match the names of a table's columns to points and axes."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from pathlib import Path

from fkp.errors import FkpError
from fkp.markup import Markup

# Unknown columns in a message, and characters of the name of a point, at most.
SHOWN, LONG = 10, 1100

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


def slots_in_order(
    file: Path, header: list[str], columns: list[int], width: int, markup: Markup
) -> dict[int, Slot]:
    """Return the slots of columns that are x, y of each point in the markup's order.

    Args:
        file: for messages.
        header: names of all columns; empty if the file has none.
        columns: the columns of coordinates.
        width: number of columns in all.
        markup: the meaning of the points.

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


def point_names(header: list[str]) -> list[str]:
    """Return the names of the points that columns are named after, in their order; none if none is.

    >>> point_names(["image", "eye_left_x", "eye_left_y", "nose_x", "nose_y"])
    ['eye_left', 'nose']
    """
    named = [axis for name in header if len(name) > 1 and (axis := _axis(name))[1]]
    return list(dict.fromkeys(stem for stem, _ in named))


def named_slots(file: Path, header: list[str], markup: Markup) -> dict[int, Slot]:
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


def check_names(
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
