"""Write the faces of images: annotated images, JSON, `.pts` files, and one table of all of them."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from fkp.detectors import describe
from fkp.draw import draw
from fkp.errors import FkpError
from fkp.face import Face
from fkp.files.images import count_frames, read_image, write_image
from fkp.files.reading import safe_cell
from fkp.files.writing import open_whole
from fkp.inference.result_files import (
    ResultFolder,
    as_plain,
    csv_header,
    csv_row,
    face_from_record,
)
from fkp.markup import Markup

# Images that are decoded before the predictor needs them.
READ_AHEAD = 2


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

    def read_faces(self, path: Path, name: Path) -> list[Face] | None:
        """Read the faces of an image from its JSON file.

        Returns:
            The faces; None if the file is missing or damaged, or belongs to another image.
        """
        record = self.results.read_record(name)
        try:
            faces = [face_from_record(face, self.markup) for face in record["faces"]]
            return faces if record["image"] == as_plain(str(path)) else None
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
    file: Path, found: Iterable[tuple[PurePath, Sequence[Face]]], markup: Markup
) -> list[int]:
    """Write a CSV table with one row a face, in the columns that `data=csv` reads.

    Args:
        file: to write, whole or not at all.
        found: the name of each image, and its faces.
        markup: of the points.

    Returns:
        The number of faces of each image.

    Raises:
        OSError: the file cannot be written.
    """
    counts = []
    # Names of files may contain bytes that are not UTF-8.
    with (
        open_whole(file) as whole,
        io.TextIOWrapper(whole, "utf-8", "surrogateescape", newline="", write_through=True) as out,
    ):
        table = csv.writer(out)
        table.writerow(["image", *csv_header(markup)])
        for path, faces in found:
            counts.append(len(faces))
            table.writerows([safe_cell(str(path)), *csv_row(face)] for face in faces)
    return counts


def read_with_note(path: Path) -> tuple[np.ndarray, str]:
    """Read an image, and a note if it has more than one frame; else the note is empty."""
    image, frames = read_image(path), count_frames(path)
    return image, f"first of {frames} frames" if frames > 1 else ""


def read_ahead(
    images: Sequence[tuple[Path, Path]], failed: dict[str, str]
) -> Iterator[tuple[Path, Path, np.ndarray, str]]:
    """Read images in a thread while the ones before them are processed.

    Args:
        images: path and name of each.
        failed: receives the path of an image that cannot be read, and the reason.

    Yields:
        Path, name, image and note of each image that can be read.
    """
    paths = [path for path, _ in images]
    for (path, name), reading in zip(images, _submit_ahead(paths), strict=True):
        try:
            image, note = reading.result()
        except FkpError as error:
            failed[str(path)] = reason(error, path)
            continue
        yield path, name, image, note


def reason(error: FkpError, path: Path) -> str:
    """Return an error's message without the path of the file that it is about."""
    return str(error).removeprefix(f"{path}: ")


def _submit_ahead(paths: Sequence[Path]) -> Iterator[Future[tuple[np.ndarray, str]]]:
    """Yield the reading of each image, `READ_AHEAD` images after it was started."""
    with ThreadPoolExecutor(1) as reader:
        pending: deque[Future[tuple[np.ndarray, str]]] = deque()
        for path in paths:
            pending.append(reader.submit(read_with_note, path))
            if len(pending) > READ_AHEAD:
                yield pending.popleft()
        yield from pending
