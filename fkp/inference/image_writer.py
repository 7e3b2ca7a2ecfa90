"""Write the faces of images: annotated images, JSON, `.pts` files, and one table of all of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from fkp.detectors import describe
from fkp.draw import draw
from fkp.errors import FkpError
from fkp.face import Face
from fkp.files.images import open_image, write_image
from fkp.files.reading import safe_cell
from fkp.files.writing import open_whole
from fkp.inference.parquet import ParquetTable
from fkp.inference.result_files import (
    ResultFolder,
    as_plain,
    csv_header,
    csv_row,
    face_from_record,
)
from fkp.markup import Markup


class ImageWriter:
    """Write the results of single images, and read them back.

    Args:
        results: where to.
        markup: of the points.
        ckpt: the checkpoint's path, for the JSON files.
        drawn: ending of the annotated images, `png` or `jpg`; None for none.
        pts: also write `.pts` files, which count pixels from 1.
        detector: that found the faces, for the JSON files.
    """

    def __init__(
        self,
        results: ResultFolder,
        markup: Markup,
        ckpt: str | None,
        drawn: str | None,
        pts: bool,
        detector: Any,
    ):
        self.results, self.markup, self.ckpt = results, markup, ckpt
        self.drawn, self.pts, self.detector = drawn, pts, detector

    def write(
        self, path: Path, name: Path, image: np.ndarray, faces: Sequence[Face], note: str = ""
    ) -> None:
        """Write the results of one image.

        The JSON file is written last and atomically: where it exists, all files are complete.

        Args:
            path: of the image.
            name: of its results.
            image: RGB (H, W, 3) or gray (H, W) uint8.
            faces: found in it.
            note: a remark about the image; empty for none.

        Raises:
            FkpError: a result would overwrite the image.
        """
        self.results.check_overwrite(path, name, ["json", self.drawn or "json"])
        self.results.make_parent(name)

        if self.drawn is not None:
            annotated = draw(image, faces, self.markup)
            write_image(self.results.file(name, self.drawn), annotated)
        if self.pts:
            self._write_pts(name, faces)

        height, width = image.shape[:2]
        record = {
            "image": str(path),
            "size": [width, height],
            "ckpt": self.ckpt,
            "detector": describe(self.detector),
            "faces": [face.as_dict() for face in faces],
        }
        self.results.write_record(name, record | ({"notes": [note]} if note else {}))

    def read(self, path: Path, name: Path) -> tuple[list[Face], list[str]] | None:
        """Read the faces of an image, and notes about it, from its JSON file.

        Returns:
            Faces and notes; None if the file is missing or damaged, or belongs to another image.
        """
        record = self.results.read_record(name)
        try:
            faces = [face_from_record(face, self.markup) for face in record["faces"]]
            if record["image"] != as_plain(str(path)):
                return None
            notes = record.get("notes")
            return faces, list(map(str, notes)) if isinstance(notes, list) else []
        except (ValueError, TypeError, LookupError, OverflowError):
            return None

    def read_size(self, name: Path) -> tuple[int, int]:
        """Read the width and height of an image from its JSON file, pixels.

        Raises:
            FkpError: the file does not say it.
        """
        size = self.results.read_record(name).get("size")
        if not isinstance(size, list) or [type(side) for side in size] != [int, int]:
            file = self.results.file(name, "json")
            hint = "delete it, and predict again"
            raise FkpError(f"{file}: does not say the size of the image; {hint}", file=file)
        return size[0], size[1]

    def _write_pts(self, name: Path, faces: Sequence[Face]) -> None:
        """Write one `.pts` file a face, numbered from 1 if there are several faces."""
        # Imported here, as it loads pandas.
        from fkp.data.pts_folders import write_pts

        for number, face in enumerate(faces, 1):
            face_name = name if len(faces) == 1 else Path(f"{name}_{number}")
            write_pts(self.results.file(face_name, "pts"), face.points)


def write_table(
    file: Path,
    found: Iterable[tuple[PurePath, Sequence[Face]]],
    markup: Markup,
    parquet: bool = False,
) -> list[int]:
    """Write a CSV table with one row a face, in the columns that `data=csv` reads.

    Args:
        file: to write, whole or not at all.
        found: the name of each image, and its faces.
        markup: of the points.
        parquet: also write the table as Parquet, beside it.

    Returns:
        The number of faces of each image.

    Raises:
        OSError: the file cannot be written.
    """
    counts = []
    with ExitStack() as files:
        # Names of files may contain bytes that are not UTF-8.
        whole = files.enter_context(open_whole(file))
        out = files.enter_context(
            io.TextIOWrapper(whole, "utf-8", "surrogateescape", newline="", write_through=True)
        )
        table = csv.writer(out)
        table.writerow(["image", *csv_header(markup)])
        columns = None
        if parquet:
            other = files.enter_context(open_whole(file.with_suffix(".parquet")))
            columns = files.enter_context(ParquetTable(other, markup))

        for path, faces in found:
            counts.append(len(faces))
            table.writerows([safe_cell(str(path)), *csv_row(face)] for face in faces)
            if columns is not None:
                columns.add(path, faces)
    return counts


def read_with_note(path: Path) -> tuple[np.ndarray, str]:
    """Read an image, and a note if it has more than one frame; else the note is empty."""
    opened = open_image(path)
    frames = opened.frames
    return opened.decode(), frames_note(frames)


def frames_note(frames: int) -> str:
    """Return the note about an image that is the first of so many frames; empty for one."""
    return f"first of {frames} frames" if frames > 1 else ""


def reason(error: FkpError, path: Path) -> str:
    """Return an error's message without the path of the file that it is about."""
    return str(error).removeprefix(f"{path}: ")
