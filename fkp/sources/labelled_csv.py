"""Anybody's CSV of key points and folder of pictures."""

from __future__ import annotations

import csv
import difflib
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TextIO

import numpy as np
import pandas as pd

from fkp.columns import BLOCK
from fkp.errors import FkpError
from fkp.files import harmless, inside, open_text
from fkp.markup import Markup, load_markup
from fkp.sources.table import FAR, FaceTable, Fault, OnBad, Source

Line = tuple[int, list[str]]  # its number, and its cells
BOX = ["box_left", "box_top", "box_right", "box_bottom"]
PREDICTED = ["score", "confidence"]  # in the tables of predict.py, which are labels once they have been looked through
UNLABELLED = ("", "nan", "NaN")
BYTES, ROWS = 1 << 31, 1 << 21  # of a file, at most
LETTERS = 1 << 24  # of a row, at most; and of the rows that are held at once, which take ten times as many bytes
SHOWN = 10  # columns that are not known


class LabelledCsv(Source):
    """A CSV of key points and a folder of pictures.

    The first column is the file name. Then either the published layout, x, y of each point in the markup's order under
    any headers; or named columns, `left_eye_x`, `left_eye_y`, … in any order, where points without a column have no
    label. Both may have a column `identity` (the person) and `box_left`, `box_top`, `box_right`, `box_bottom` (a
    detector's face box, taken instead of the one drawn round the points). An empty cell is a point without a label. A
    table of `predict.py` is one, too; its pictures are named from the folder it ran in, which `images` then is, or from
    `/`.

    Args:
        root: folder of the CSV.
        file: the CSV's name, relative to root.
        images: folder of the pictures, relative to root; a name that leads out of it, by `..` or a link, is a bad row.
        identity: regular expression; group 1 of a file name is the person, where no column says it. The whole name,
            if it does not match.
        split: `identity`; `official` and `strict` need test_file.
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
        identity: str = r"(.+)_\d+\.\w+$",
        split: Literal["official", "identity", "strict"] = "identity",
        test_file: str | None = None,
        test_images: str | None = None,
        markup: str = "ibug68",
        on_bad: OnBad = "stop",
    ):
        self.root, self.split, self.on_bad = Path(root), split, on_bad
        self.identity = re.compile(identity)
        self.parts = {"train": (file, images)}
        if test_file is not None:
            self.parts["test"] = (test_file, test_images or images)
        self.markup = load_markup(markup)

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        """All faces of all files.

        Raises:
            FkpError: no such file, not a CSV, or columns that cannot be understood.
        """
        faults: list[Fault] = []
        parts = [
            self._read(self.root / file, self.root / images, part, faults)
            for part, (file, images) in self.parts.items()
        ]
        return FaceTable.joined(itertools.chain(*parts)), faults

    def _read(self, file: Path, images: Path, official: str, faults: list[Fault]) -> Iterator[FaceTable]:
        """Some thousands of faces at a time: as text, and as cells, they take ten times the memory."""
        if not file.exists():
            raise FkpError(f"{file}: no such file; data.root must name the folder that holds it")
        with open_text(file, BYTES) as text:
            for header, lines in _blocks(file, text):
                table, bad = self._faces(file, images, official, header, lines)
                faults += bad
                yield table

    def _faces(
        self, file: Path, images: Path, official: str, header: list[str], lines: list[Line]
    ) -> tuple[FaceTable, list[Fault]]:
        faults = [
            Fault(f"{file.name}:{line}", f"{len(cells)} cells, but the header has {len(header)}")
            for line, cells in lines
            if len(cells) != len(header)
        ]
        lines = [(line, cells) for line, cells in lines if len(cells) == len(header)]
        place = {name: header.index(name) for name in ("identity", *BOX, *PREDICTED) if name in header}
        if 0 < sum(name in place for name in BOX) < 4:
            raise FkpError(f"{file}: a box needs the four columns {', '.join(BOX)}")
        order = _points(file, header, self.markup, set(place.values()))
        columns = order + [place[name] for name in BOX if name in place]
        cells = np.array([[cells[c].strip() for c in columns] for _, cells in lines], object).reshape(-1, len(columns))
        numbers = pd.to_numeric(cells.ravel(), errors="coerce").reshape(cells.shape)
        empty = np.asarray(np.isin(cells.astype(str), UNLABELLED))
        wrong = ~(np.abs(numbers) < FAR) & ~empty
        points = np.full((len(lines), len(self.markup.points), 2), np.nan)
        points[:, *_slots(order, header, self.markup)] = numbers[:, : len(order)]
        half = np.isfinite(points).sum(2) == 1
        labelled = np.isfinite(points).any((1, 2))
        boxes = numbers[:, len(order) :] if len(columns) > len(order) else np.full((len(lines), 4), np.nan)
        flat = np.asarray(np.isfinite(boxes).all(1) & (boxes[:, 2:] <= boxes[:, :2]).any(1))

        names, people, rows, good = [], [], [], []
        for i, (line, row) in enumerate(lines):
            name = row[0].strip()
            where, path = f"{file.name}:{line}", images / name
            column = int(np.flatnonzero(wrong[i])[0]) if wrong[i].any() else -1
            if not inside(images, path):
                faults.append(Fault(where, f"{name} leads out of {images}; set data.images to a folder above both"))
            elif not os.path.isfile(path):
                faults.append(Fault(where, f"no picture {path}"))
            elif column >= 0:
                said = cells[i, column]
                faults.append(Fault(where, f"{said!r} in column {columns[column] + 1} is not a number of pixels"))
            elif half[i].any():
                point = self.markup.points[int(np.flatnonzero(half[i])[0])]
                faults.append(Fault(where, f"{point} has one coordinate of two"))
            elif not labelled[i]:
                faults.append(Fault(where, "no point is labelled"))
            elif flat[i]:
                faults.append(Fault(where, "its box has no area"))
            else:
                good.append(i)
                names.append(path)
                said = row[place["identity"]].strip() if "identity" in place else ""
                match = self.identity.match(name)
                people.append(said or (match.group(1) if match else name))
                rows.append(where)
        faults.sort(key=lambda fault: int(fault.row.rpartition(":")[2]))
        return FaceTable(names, points[good], people, rows, [official] * len(good), boxes[good]), faults


def _blocks(file: Path, text: TextIO) -> Iterator[tuple[list[str], list[Line]]]:
    """The header, and some rows at a time."""
    letters = 0  # of this row, or of these

    def lines() -> Iterator[str]:
        nonlocal letters
        while line := text.readline(LETTERS + 1):
            letters += len(line)
            if len(line) > LETTERS or letters > 2 * LETTERS:  # for rows before it may have come to that many
                raise csv.Error(f"a row of more than {LETTERS} letters")
            yield line

    reader, count, block = csv.reader(lines()), 0, []
    try:
        header = [name.strip() for name in next(reader, [])]
        letters = 0
        for cells in filter(None, reader):
            block.append((reader.line_num, cells))
            count += 1
            if count > ROWS:
                raise FkpError(f"{file}: more than the {ROWS} rows that fkp reads of a file")
            if len(block) == BLOCK or letters > LETTERS:
                yield header, block
                letters, block = 0, []
    except csv.Error as error:
        raise FkpError(f"{file}: not a CSV of key points ({error})") from None
    if not count:
        raise FkpError(f"{file}: not a CSV of key points (it has no rows)")
    if block:
        yield header, block


def _points(file: Path, header: list[str], markup: Markup, known: set[int]) -> list[int]:
    """The columns of coordinates, as far as there are any, in the order of the file.

    Raises:
        FkpError: another number than the markup's; or, where they are named, names that it does not know.
    """
    columns = [i for i in range(1, len(header)) if i not in known]
    if not _named(header):
        if len(columns) != 2 * len(markup.points):
            raise FkpError(
                f"{file}: {len(header)} columns, but {markup.name} needs {1 + len(known) + 2 * len(markup.points)}: "
                f"a file name and {len(markup.points)} pairs of x, y"
            )
        return columns
    wanted = [f"{point}_{axis}" for point in markup.points for axis in "xy"]
    strange = []
    for i in columns:
        if header[i] not in wanted or header.count(header[i]) > 1:
            close = difflib.get_close_matches(header[i], wanted, n=1, cutoff=0.6)
            strange.append(header[i] + (f" (did you mean {close[0]}?)" if close and close[0] != header[i] else ""))
            if len(strange) > SHOWN:  # to look for what was meant takes long
                strange[-1] = "…"
                break
    alone = [name for name in wanted if name in header and name[:-1] + ("x" if name[-1] == "y" else "y") not in header]
    if strange or alone:
        told = [f"columns that markup {markup.name} does not know, or twice: {', '.join(strange)}"] if strange else []
        told += [f"columns without their other coordinate: {', '.join(alone)}"] if alone else []
        raise FkpError(f"{file}: " + "; ".join(told) + f"; its points are {', '.join(markup.points)}")
    return columns


def _named(header: list[str]) -> bool:
    return any(name.endswith("_x") for name in header)


def _slots(columns: list[int], header: list[str], markup: Markup) -> tuple[list[int], list[int]]:
    """The point and the axis of each column."""
    if not _named(header):
        return [i // 2 for i in range(len(columns))], [i % 2 for i in range(len(columns))]
    return [markup.points.index(header[i][:-2]) for i in columns], [int(header[i].endswith("_y")) for i in columns]


def write_csv(file: Path, names: Iterable[str], points: np.ndarray) -> None:
    """Write the published layout; `LabelledCsv` reads it back."""
    with file.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["", *range(2 * points.shape[1])])
        for name, face in zip(names, points.reshape(len(points), -1).tolist(), strict=True):
            table.writerow([harmless(name), *("" if value != value else f"{value:.3f}" for value in face)])
