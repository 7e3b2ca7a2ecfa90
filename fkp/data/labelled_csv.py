"""Anybody's CSV of key points and folder of pictures."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from fkp.data.csv_layout import Layout, find_layout
from fkp.data.csv_reader import Row, is_number, open_csv
from fkp.data.identity import own_if_one_person, person, person_pattern, warn_of_video
from fkp.data.image_folder import ImageFolder, without_clashes
from fkp.data.table import FAR, FaceTable, Fault, OnBad, Source
from fkp.errors import FkpError
from fkp.files.reading import safe_cell
from fkp.markup import Markup, load_markup

UNLABELLED = [
    "",
    "nan",
    "NaN",
    "NA",
    "N/A",
    "#N/A",
    "<NA>",
    "None",
    "null",
    "NULL",
]  # of pandas, R, SQL, Excel
TABLES, SHOWN = (
    (".csv", ".tsv", ".txt", ".xlsx"),
    3,
)  # what may have been meant, if there is no such file
IDENTITY = r"(.+)_\d+\.\w+$"


class LabelledCsv(Source):
    """A CSV of key points and a folder of pictures.

    Separators, decimal commas, encoding and a missing header are recognised. The column of the file names is the one
    that holds most names of images, else the first; a column before it that counts the rows is left out, and so are
    empty ones. The other columns have either the published layout, x, y of each point in the markup's order under
    any headers; or named columns, `left_eye_x`, `left_eye_y`, … in any order, where points without a column have no
    label. Both may have a column `identity` (the person) and `box_left`, `box_top`, `box_right`, `box_bottom` (a
    detector's face box, taken instead of the one drawn round the points). An empty cell is a point without a label. A
    table of `predict.py` is one, too; its pictures are named from the folder it ran in, which `images` then is, or from
    `/`.

    Args:
        root: folder of the CSV.
        file: the CSV's name, relative to root.
        images: folder of the pictures, relative to root; a name that leads out of it, by `..` or a link, is a bad row.
            If it is missing: root, or the only folder in it that holds images. For names that are not there see
            `fkp.data.image_folder`.
        identity: regular expression; group 1 of a file name is the person, where no column says it. The whole name,
            if it does not match, or if the default would take most of the set for one person.
        protocol: `identity`; `official` and `strict` need test_file.
        test_file: a second CSV with the publisher's test rows, if there is one.
        test_images: the folder of its pictures, if it is another.
        markup: name of a markup that comes with fkp, or path of a YAML file.
        on_bad: `stop` or `skip`.
    """

    def __init__(
        self,
        root: str,
        file: str = "keypoints.csv",
        images: str = "images",
        identity: str = IDENTITY,
        protocol: Literal["official", "identity", "strict"] = "identity",
        test_file: str | None = None,
        test_images: str | None = None,
        markup: str = "ibug68",
        on_bad: OnBad = "stop",
    ):
        self.root, self.protocol, self.on_bad = Path(root), protocol, on_bad
        self.identity = person_pattern(identity)
        self.parts = {"train": (file, images)}
        if test_file is not None:
            self.parts["test"] = (test_file, test_images or images)
        self.markup = load_markup(markup)

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """All faces of all files.

        Raises:
            FkpError: no such file, not a CSV, or columns that cannot be understood.
        """
        seen = _Seen()
        tables = (self._read(*names, part, seen) for part, names in self.parts.items())
        table, clashes = without_clashes(
            FaceTable.joined(itertools.chain.from_iterable(tables)), seen.searched
        )
        if self.identity.pattern == IDENTITY and not seen.people:
            own_if_one_person(table, self.root, IDENTITY)
        warn_of_video(table)
        return table, seen.faults + clashes

    def _read(self, file: str, images: str, official: str, seen: _Seen) -> Iterator[FaceTable]:
        """Some thousands of faces at a time: as text, and as cells, they take ten times the memory."""
        path = self.root / file
        if not path.exists():
            others = sorted(
                other.name for other in self.root.glob("*") if other.suffix.lower() in TABLES
            )[:SHOWN]
            told = (
                f"data.file may be {' or '.join(others)}"
                if others
                else "data.root must name the folder that holds it"
            )
            raise FkpError(f"{path}: no such file; {told}")
        with open_csv(path) as table:
            layout = find_layout(path, table.header, table.sample, self.markup)
            blocks = table.blocks()
            first = next(blocks)  # a table without rows says so before its images are looked for
            names = [
                cells[layout.image].strip() for cells in table.sample if layout.image < len(cells)
            ]
            folder = ImageFolder(self.root, images, names)
            for rows in itertools.chain([first], blocks):
                yield self._faces(path, folder, official, layout, rows, seen)

    def _faces(
        self,
        file: Path,
        folder: ImageFolder,
        official: str,
        layout: Layout,
        rows: list[Row],
        seen: _Seen,
    ) -> FaceTable:
        """The faces of some rows; what is wrong with the others goes to `seen`."""
        fitted = [(row, layout.fit(row.cells)) for row in rows]
        right = [(row, cells) for row, cells in fitted if len(cells) == layout.width]
        faults = [
            (row.line, layout.misfit(cells)) for row, cells in fitted if len(cells) != layout.width
        ]
        labels = _read_labels(file, layout, [cells for _, cells in right], self.markup)

        names, people, where, good = [], [], [], []
        for i, (row, cells) in enumerate(right):
            name = cells[layout.image].strip()
            found = folder.find(name)
            fault = (
                found
                if isinstance(found, str)
                else _broken(row, cells, layout, found[1]) or labels.fault(i)
            )
            if isinstance(found, str) or fault:
                faults.append((row.line, str(fault)))
                continue
            path, by_search = found
            where.append(f"{file.name}:{row.line}")
            seen.searched |= {where[-1]: name} if by_search else {}
            names.append(path)
            people.append(self._person(name, cells, layout, seen))
            good.append(i)

        whole = {right[i][0].line for i in good}
        told = "part of a quoted cell that begins in line {}; is a quotation mark missing?"
        faults += [
            (line, told.format(row.line))
            for row in rows
            if row.line not in whole
            for line in row.more
        ]
        seen.faults += [Fault(f"{file.name}:{line}", what) for line, what in sorted(faults)]
        return FaceTable(
            names, labels.points[good], people, where, [official] * len(good), labels.boxes[good]
        )

    def _person(self, name: str, cells: list[str], layout: Layout, seen: _Seen) -> str:
        said = cells[layout.identity].strip() if layout.identity is not None else ""
        seen.people |= bool(said)
        return said or person(self.identity, name)


@dataclass
class _Seen:
    """What a survey finds besides faces.

    Args:
        faults: of the rows that cannot be used.
        searched: for rows whose image was found by search, the name in the table.
        people: whether a column says who is who.
    """

    faults: list[Fault] = field(default_factory=list)
    searched: dict[str, str] = field(default_factory=dict)
    people: bool = False


@dataclass
class _Labels:
    """The numbers of n rows.

    Args:
        points: (n, K, 2), IMAGE pixels; NaN where a point is not labelled.
        boxes: (n, 4), NaN where there is none.
        cells: (n, m), text of the columns of points and boxes.
        wrong: (n, m), whether a cell is neither empty nor a number of pixels.
        columns: (m,), where these cells stand in a row.
        markup: whose points these are.
    """

    points: np.ndarray
    boxes: np.ndarray
    cells: np.ndarray
    wrong: np.ndarray
    columns: list[int]
    markup: Markup

    def __post_init__(self) -> None:
        labelled = np.isfinite(self.points)
        self.half = labelled.sum(2) == 1  # (n, K)
        self.none = ~labelled.any((1, 2))
        boxes = self.boxes
        self.flat = np.asarray(np.isfinite(boxes).all(1) & (boxes[:, 2:] <= boxes[:, :2]).any(1))
        self.bad = self.wrong.any(1) | self.half.any(1) | self.none | self.flat

    def fault(self, i: int) -> str:
        """What is wrong with row i; nothing if it can be used."""
        if not self.bad[i]:
            return ""
        if self.wrong[i].any():
            column = int(np.flatnonzero(self.wrong[i])[0])
            said = self.cells[i, column]
            mixed = (
                "; decimal points and commas are mixed"
                if is_number(said) and ("," in said or "." in said)
                else ""
            )
            return f"{said!r} in column {self.columns[column] + 1} is not a number of pixels{mixed}"
        if self.half[i].any():
            return f"{self.markup.points[int(self.half[i].argmax())]} has one coordinate of two"
        return "no point is labelled" if self.none[i] else "its box has no area"


def _read_labels(file: Path, layout: Layout, rows: list[list[str]], markup: Markup) -> _Labels:
    columns = layout.points + layout.boxes
    cells = np.array([[row[c].strip() for c in columns] for row in rows], object).reshape(
        -1, len(columns)
    )
    numbers = layout.numbers(file, cells)
    wrong = ~(np.abs(numbers) < FAR) & ~np.asarray(np.isin(cells.astype(str), UNLABELLED))

    points = np.full((len(rows), len(markup.points), 2), np.nan)
    points[:, *layout.slots] = numbers[:, : len(layout.points)]
    boxes = numbers[:, len(layout.points) :] if layout.boxes else np.full((len(rows), 4), np.nan)
    return _Labels(points, boxes, cells, wrong, columns, markup)


def _broken(row: Row, cells: list[str], layout: Layout, by_search: bool) -> str:
    """Whether a row holds what is no cell of it: text in an empty column, or line breaks that are in no file name."""
    for i in layout.empty:
        if cells[i].strip():
            return f"{cells[i].strip()!r} in column {i + 1}, which has no name and is empty in the first rows"
    for i, cell in enumerate(cells if row.more else ()):
        if (i != layout.image or by_search) and re.search(r"[\r\n]", cell.strip()):
            return f"a line break in column {i + 1}; is a quotation mark missing?"
    return ""


def write_csv(file: Path, names: Iterable[str], points: np.ndarray) -> None:
    """Write the published layout; `LabelledCsv` reads it back."""
    with file.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["", *range(2 * points.shape[1])])
        for name, face in zip(names, points.reshape(len(points), -1).tolist(), strict=True):
            table.writerow(
                [safe_cell(name), *("" if value != value else f"{value:.3f}" for value in face)]
            )
