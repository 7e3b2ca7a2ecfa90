"""Read labels from a CSV of key points and a folder of images."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from fkp.data.csv_labels import read_labels
from fkp.data.csv_layout import Layout, find_layout
from fkp.data.csv_reader import Row, open_csv
from fkp.data.identity import own_if_one_person, person, person_pattern, warn_of_video
from fkp.data.image_folder import ImageFolder, without_clashes
from fkp.data.label_weights import COLUMN, Weights, read_spreads, weigh
from fkp.data.point_columns import point_names
from fkp.data.table import FaceTable, Fault, OnBad, Source
from fkp.errors import FkpError
from fkp.files.reading import safe_cell
from fkp.files.writing import open_whole
from fkp.markup import Markup, load_markup
from fkp.ranges import require

# If the CSV is missing: endings of the files that are suggested, and how many.
TABLES, SHOWN = (".csv", ".tsv", ".txt", ".xlsx"), 3
IDENTITY = r"(.+)_\d+\.\w+$"


class LabelledCsv(Source):
    """A CSV of key points and a folder of images.

    Separators, decimal commas, encoding and a missing header are detected. The column of file names
    is the one with the most names of images, else the first; a column before it that numbers the
    rows is left out, and so are empty columns. The other columns have one of two layouts:

    - published: x, y of each point in the markup's order, under any headers;
    - named: `left_eye_x`, `left_eye_y`, … in any order; points without a column have no label.

    Both may have a column `identity` (the person), and `box_left`, `box_top`, `box_right`,
    `box_bottom` (a detector's face box, used instead of the box around the points), and `weight`:
    how often an epoch of training shows the face, from 0 to 100, in quarters. An empty cell is a
    point without a label. Tables of `predict.py` can be read, too; their images are named
    relative to the folder where it ran, which `images` must then be, or to `/`.

    Coordinates are IMAGE pixels, counted from 0.

    Args:
        root: folder of the CSV.
        file: name of the CSV, relative to root.
        images: folder of the images, relative to root. A name that leads out of it, by `..` or a
            link, is a bad row. If the folder is missing: root, or the only folder in it with
            images. For names of missing files see `fkp.data.image_folder`.
        identity: regular expression; group 1 of a file name is the person, where no column says
            it. The whole name is the person if the expression does not match, or if the default
            would make most of the set one person.
        protocol: `identity`; `official` and `strict` need test_file; `train`, as a source of
            `Joined`, is for training only.
        test_file: a second CSV with the publisher's test rows, if there is one.
        test_images: the folder of its images, if it is another.
        markup: name of a markup that comes with fkp, or path of a YAML file; None takes the points
            from the names of the columns.
        on_bad: `stop` or `skip`.
        folds, fold: number of folds of a cross-validation by person, and the one that is tested on,
            see `Source`.
        spread: how far several teachers disagree about each label: `column` for the column `spread`
            of the labels, or a CSV beside them with the columns `file` and `spread`. It gives the
            weight min(1, (full_weight_spread / spread)^2), in quarters, at least one; times that of
            the column `weight`. None gives every face its full weight.
        full_weight_spread: the spread up to which a face has its full weight.
    """

    def __init__(
        self,
        root: str,
        file: str = "keypoints.csv",
        images: str = "images",
        identity: str = IDENTITY,
        protocol: Literal["official", "identity", "strict", "train"] = "identity",
        test_file: str | None = None,
        test_images: str | None = None,
        markup: str | None = "ibug68",
        on_bad: OnBad = "stop",
        folds: int | None = None,
        fold: int | Literal["all"] | None = None,
        spread: str | None = None,
        full_weight_spread: float = 1.0,
    ):
        self.root, self.protocol, self.on_bad = Path(root), protocol, on_bad
        self.folds, self.fold = folds, fold
        self.identity = person_pattern(identity)
        self.spread, self.full_weight_spread = spread, full_weight_spread
        require(full_weight_spread=full_weight_spread)
        if markup is not None:
            self.markup = load_markup(markup)

        # The publisher's splits: CSV and folder of images.
        self.official = {"train": (file, images)}
        if test_file is not None:
            self.official["test"] = (test_file, test_images or images)

    def read_markup(self) -> Markup:
        """Return the markup that the names of the columns describe.

        Raises:
            FkpError: the columns are not named after points.
        """
        path = self.root / self.official["train"][0]
        if not path.exists():
            raise FkpError(f"{path}: no such file; {self._suggestion()}", file=path)
        with open_csv(path) as table:
            names = point_names(table.header)
        if not names:
            what = f"{path}: no column is named after a point (…_x, …_y); set data.markup"
            raise FkpError(what, key="data.markup", file=path)
        return Markup(path.stem, names)

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """Read all faces of all files.

        Raises:
            FkpError: the file is missing or not a CSV, or its columns cannot be understood.
        """
        own_file = self.spread not in (None, COLUMN)
        found = _Found(spreads=read_spreads(self.root / str(self.spread)) if own_file else None)
        tables = (self._read(*names, split, found) for split, names in self.official.items())
        faces = FaceTable.joined(itertools.chain.from_iterable(tables))
        faces, clashes = without_clashes(faces, found.searched)

        if self.identity.pattern == IDENTITY and not found.has_people:
            own_if_one_person(faces, self.root, IDENTITY)
        warn_of_video(faces)
        return faces, found.faults + clashes

    def _read(self, file: str, images: str, split: str, found: _Found) -> Iterator[FaceTable]:
        """Read one CSV in blocks of rows, as text takes ten times the memory of labels."""
        path = self.root / file
        if not path.exists():
            raise FkpError(f"{path}: no such file; {self._suggestion()}")

        with open_csv(path) as table:
            layout = find_layout(path, table.header, table.sample, self.markup)
            if self.spread == COLUMN and "spread" not in layout.weights:
                what = (
                    f"{path}: has no column `spread`; set data.spread to a file beside it, or null"
                )
                raise FkpError(what, key="data.spread", file=path)
            blocks = table.blocks()

            # The first block before the folder: a table without rows is reported first.
            first = next(blocks)
            names = [
                cells[layout.image].strip() for cells in table.sample if layout.image < len(cells)
            ]
            folder = ImageFolder(self.root, images, names)
            for rows in itertools.chain([first], blocks):
                yield self._faces(path, folder, split, layout, rows, found)

    def _suggestion(self) -> str:
        """Say which file or folder may be the right one if the CSV is missing."""
        others = sorted(
            other.name for other in self.root.glob("*") if other.suffix.lower() in TABLES
        )[:SHOWN]
        if others:
            return f"data.file may be {' or '.join(others)}"
        return "data.root must name the folder that holds it"

    def _faces(
        self,
        file: Path,
        folder: ImageFolder,
        split: str,
        layout: Layout,
        rows: list[Row],
        found: _Found,
    ) -> FaceTable:
        """Convert a block of rows to faces; faults of the other rows are added to `found`."""
        # Rows with the right number of cells.
        fitted = [(row, layout.fit(row.cells)) for row in rows]
        complete = [(row, cells) for row, cells in fitted if len(cells) == layout.width]
        faults = [
            (row.line, layout.misfit(cells)) for row, cells in fitted if len(cells) != layout.width
        ]

        # Their labels and images.
        whole = [cells for _, cells in complete]
        labels = read_labels(file, layout, whole, self.markup)
        weights = self._weights(file, layout, whole, found)
        faces = _Faces()
        for i, (row, cells) in enumerate(complete):
            name = cells[layout.image].strip()
            image = folder.find(name)
            if isinstance(image, str):
                faults.append((row.line, image))
                continue
            path, by_search = image
            fault = _misplaced_text(row, cells, layout, by_search) or labels.fault(i)
            if fault := fault or weights.faults.get(i, ""):
                faults.append((row.line, fault))
                continue

            where = f"{file.name}:{row.line}"
            if by_search:
                found.searched[where] = name
            faces.add(i, path, self._person(name, cells, layout, found), where)

        # Further lines of bad rows may be rows swallowed by an unbalanced quotation mark.
        good = {complete[i][0].line for i in faces.indices}
        faults += _swallowed_lines([row for row in rows if row.line not in good])
        found.faults += [Fault(f"{file.name}:{line}", what) for line, what in sorted(faults)]

        return FaceTable(
            faces.paths,
            labels.points[faces.indices],
            faces.people,
            faces.rows,
            [split] * len(faces.indices),
            labels.boxes[faces.indices],
            weights.values[faces.indices],
        )

    def _weights(self, file: Path, layout: Layout, rows: list[list[str]], found: _Found) -> Weights:
        """Return the weights of rows, by the column `weight` and the spread, if it is asked for."""
        cells = {
            name: [row[column].strip() for row in rows]
            for name, column in layout.weights.items()
            if name == "weight" or self.spread == COLUMN
        }
        if found.spreads is not None:
            names = [row[layout.image].strip() for row in rows]
            cells["spread"] = [
                found.spreads.get(name, f"missing in {self.spread}") for name in names
            ]

        none = np.full(len(rows), np.nan)
        numbers = {
            name: layout.numbers(file, np.array(column, object)) for name, column in cells.items()
        }
        return weigh(
            numbers.get("weight", none), numbers.get("spread", none), cells, self.full_weight_spread
        )

    def _person(self, name: str, cells: list[str], layout: Layout, found: _Found) -> str:
        """Return the person of a row: of the column `identity`, else of the file name."""
        cell = cells[layout.identity].strip() if layout.identity is not None else ""
        found.has_people |= bool(cell)
        return cell or person(self.identity, name)


@dataclass
class _Found:
    """What a survey finds besides faces.

    Args:
        faults: of the rows that cannot be used.
        searched: for rows whose image was found by search, the name in the table.
        has_people: whether a cell of a column `identity` has been read.
        spreads: name of an image -> its spread, as text, of the file that `data.spread` names.
    """

    faults: list[Fault] = field(default_factory=list)
    searched: dict[str, str] = field(default_factory=dict)
    has_people: bool = False
    spreads: dict[str, str] | None = None


@dataclass
class _Faces:
    """The usable rows of a block: index, image, person and place of each."""

    indices: list[int] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    people: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)

    def add(self, index: int, path: Path, who: str, row: str) -> None:
        """Append a row."""
        self.indices.append(index)
        self.paths.append(path)
        self.people.append(who)
        self.rows.append(row)


def _misplaced_text(row: Row, cells: list[str], layout: Layout, by_search: bool) -> str:
    """Report text in an empty column, and line breaks; empty if there is neither.

    The name of an existing file may contain line breaks.
    """
    for i in layout.empty:
        if cells[i].strip():
            return (
                f"{cells[i].strip()!r} in column {i + 1}, which has no name and is empty in the "
                "first rows"
            )
    for i, cell in enumerate(cells if row.more else ()):
        if (i != layout.image or by_search) and re.search(r"[\r\n]", cell.strip()):
            return f"a line break in column {i + 1}; is a quotation mark missing?"
    return ""


def _swallowed_lines(rows: Iterable[Row]) -> Iterator[tuple[int, str]]:
    """Yield line and fault of the further lines of bad rows."""
    for row in rows:
        for line in row.more:
            yield (
                line,
                f"inside a quoted cell that begins in line {row.line}; is a quotation mark "
                "missing?",
            )


def write_csv(file: Path, names: Iterable[str], points: np.ndarray) -> None:
    """Write labels in the published layout, atomically; `LabelledCsv` reads them.

    Args:
        file: the CSV.
        names: of F images.
        points: (F, K, 2), IMAGE pixels; NaN where a point is not labelled.
    """
    with (
        open_whole(file) as whole,
        io.TextIOWrapper(whole, newline="", encoding="utf-8") as out,
    ):
        table = csv.writer(out)
        table.writerow(["", *range(2 * points.shape[1])])
        for name, face in zip(names, points.reshape(len(points), -1).tolist(), strict=True):
            cells = ("" if value != value else f"{value:.3f}" for value in face)
            table.writerow([safe_cell(name), *cells])
