"""Read DeepLabCut's labels: CSV with header rows scorer, [individuals,] bodyparts, coords.

Coordinates count from the centre of the top-left pixel: they are those of napari's points layer
(napari_deeplabcut/core/io.py saves them unchanged), where pixel (0, 0) of the image is centred at
(0, 0). DeepLabCut keeps the same table as H5 beside the CSV: `data.file=….h5` reads that one.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from fkp.data.csv_reader import BYTES
from fkp.data.formats.base import LabelFormat, files_below
from fkp.data.formats.contents import (
    MALFORMED,
    Contents,
    NamedFace,
    keep_videos_together,
    malformed,
    named_contents,
)
from fkp.data.formats.deeplabcut_h5 import h5_rows
from fkp.errors import FkpError
from fkp.files.images import IMAGE_ENDINGS
from fkp.files.reading import open_text, read_start

HEADER = ("scorer", "individuals", "bodyparts", "coords")
H5 = (".h5", ".hdf5")
SCORER = b"scorer,"


class DeepLabCut(LabelFormat):
    """`CollectedData_*.csv` of DeepLabCut: of one folder, or of all videos of a project.

    An empty cell is a point without a label. Each individual of an image is a face; `likelihood`
    is left out. The frames of one video stay in one split, if there are at least six videos.
    """

    @classmethod
    def recognise(cls, root: Path) -> list[Path]:
        found = [file for file in files_below(root, (".csv",)) if _is_deeplabcut(file)]
        collected = [file for file in found if file.name.startswith("CollectedData")]
        return collected or found or sorted(root.rglob("CollectedData*.h5"))

    def contents(self) -> Contents:
        files = self.label_files("CSV of DeepLabCut")
        faces = [face for file in files for face in self._faces(file)]
        keep_videos_together(faces)
        return named_contents("deeplabcut", faces, files[0])

    def _faces(self, file: Path) -> Iterator[NamedFace]:
        """Read one file: a face for each row and individual."""
        where = file.relative_to(self.root).as_posix()
        if file.suffix.lower() in H5:
            rows = h5_rows(file)
            columns = _header(file, rows)
            first = 1 + columns.levels
            for number, cells in enumerate(rows, first):
                yield from _row(cells, columns, f"{where}:{number}")
            return

        with open_text(file, BYTES) as text:
            lines = csv.reader(text)
            try:
                columns = _header(file, lines)
                for cells in lines:
                    if cells:
                        yield from _row(cells, columns, f"{where}:{lines.line_num}")
            except csv.Error as error:
                raise FkpError(f"{file}:{lines.line_num}: {error}", file=file) from None


class _Columns:
    """The columns of a table.

    Args:
        levels: number of header rows.
        first: number of columns that name the image.
        places: column of x or y -> individual, body part, 0 or 1.
    """

    def __init__(self, levels: int, first: int, places: dict[int, tuple[str, str, int]]):
        self.levels, self.first, self.places = levels, first, places
        self.individuals = list(dict.fromkeys(who for who, _, _ in places.values()))


def _header(file: Path, rows: Iterator[list[str]]) -> _Columns:
    """Read the header rows, down to `coords`.

    Raises:
        FkpError: they are not those of DeepLabCut.
    """
    levels: dict[str, list[str]] = {}
    for cells in islice(rows, len(HEADER)):
        if cells:
            levels[cells[0]] = cells
        if "coords" in levels:
            break
    if not {"scorer", "bodyparts", "coords"} <= set(levels):
        what = "no header rows scorer, bodyparts, coords"
        raise FkpError(f"{file}: {what}; is it a CSV of DeepLabCut?", file=file)

    coords, parts = levels["coords"], levels["bodyparts"]
    individuals = levels.get("individuals", [""] * len(coords))
    columns = [i for i, cell in enumerate(coords) if cell in ("x", "y")]
    if not columns or len(parts) < len(coords) or len(individuals) < len(coords):
        raise FkpError(f"{file}: header rows of different lengths", file=file)

    # The columns before the first coordinate name the image: in one, or as folder, folder, file.
    places = {i: (individuals[i], parts[i], "xy".index(coords[i])) for i in columns}
    return _Columns(len(levels), columns[0], places)


def _row(cells: list[str], columns: _Columns, where: str) -> Iterator[NamedFace]:
    """Yield the faces of a row; an individual without any label is not in the image."""
    image = "/".join(part for part in cells[: columns.first] if part).replace("\\", "/")
    video = image.rpartition("/")[0]
    if not image.lower().endswith(tuple(IMAGE_ENDINGS)):
        what = f"{image!r:.80} is no image; extract the labelled frames of the video"
        yield NamedFace(image, {}, where, fault=what)
        return

    found = 0
    for who in columns.individuals:
        points: dict[str, list[float]] = {}
        try:
            for i, (individual, part, axis) in columns.places.items():
                if individual == who and cells[i].strip():
                    points.setdefault(part, [float("nan")] * 2)[axis] = float(cells[i])
        except MALFORMED as error:
            yield NamedFace(image, {}, where, fault=malformed(error))
            continue
        if points:
            found += 1
            yield NamedFace(image, points, f"{where}:{who}" if who else where, person=video)
    if not found:
        yield NamedFace(image, {}, where, fault="no point is labelled")


def _is_deeplabcut(file: Path) -> bool:
    """Return whether a table has the header rows of DeepLabCut."""
    try:
        if not read_start(file, len(SCORER), BYTES).startswith(SCORER):
            return False
        with open_text(file, BYTES) as text:
            _header(file, csv.reader(text))
    except (FkpError, csv.Error):
        return False
    return True
