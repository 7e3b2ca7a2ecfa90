"""Decode every image once: cache the crops around faces as raw pixels in a memory-mapped file.

The cache of a table is a folder with two files: `pixels.bin`, all cached crops one after the other,
and `index`, a digest and an .npz archive of columns that say where each crop lies.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from filelock import FileLock

from fkp.console import track
from fkp.data.columns import taken
from fkp.data.image_digests import digests, map_ahead
from fkp.data.table import FaceTable
from fkp.errors import FkpError
from fkp.files.cache import cache_folder, fingerprint
from fkp.files.images import read_image, reads_heic
from fkp.geometry import (
    IDENTITY,
    centre_and_side,
    compose,
    face_box,
    rescaling,
    square,
    translation,
    warp,
)
from fkp.markup import Markup

VERSION = 5  # of the cache; raise it when its layout changes, or how images are read
DIGEST = 16  # bytes at the start of the index: the digest of the rest


class Decoded(NamedTuple):
    """One decoded face.

    Args:
        pixels: (h, w, C) uint8, the cached crop.
        affine: (2, 3), IMAGE -> cached crop.
        extent: width and height of the whole image, pixels.
    """

    pixels: np.ndarray
    affine: np.ndarray
    extent: tuple[int, int]


NOTHING = Decoded(np.zeros((0, 0, 1), np.uint8), IDENTITY, (0, 0))


@dataclass(frozen=True)
class ImageCache:
    """Hold the decoded crops around F faces, all in one flat uint8 array.

    Args:
        pixels: (bytes,) uint8, all cached crops one after the other.
        starts: (F,) int64, where each begins.
        shapes: (F, 3) int64, height, width and channels of each; 0 where the image cannot be read.
        affines: (F, 2, 3), IMAGE -> cached crop.
        extents: (F, 2), width and height of the whole images, pixels.
        boxes: (F, 4), the face boxes, IMAGE pixels.
        file: the file that `pixels` maps, if any. A pickled cache holds no pixels then: the process
            that loads it maps the file again.
    """

    pixels: np.ndarray
    starts: np.ndarray
    shapes: np.ndarray
    affines: np.ndarray
    extents: np.ndarray
    boxes: np.ndarray
    file: Path | None = None

    def __getstate__(self) -> dict[str, object]:
        return vars(self) | ({"pixels": None} if self.file else {})

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        if self.file:
            vars(self)["pixels"] = _mapped(self.file)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return the cached crop (h, w, C) uint8 of one face, a view."""
        shape, start = self.shapes[index], self.starts[index]
        return self.pixels[start : start + int(np.prod(shape))].reshape(shape)

    def prefetch(self, faces: Sequence[int] | np.ndarray) -> None:
        """Ask the kernel to read the pixels of these faces now, and nothing around them.

        Without this it reads a page when it is first touched, and half a megabyte around it, which
        is five times slower from a disk.
        """
        if not isinstance(self.pixels.base, mmap.mmap) or not hasattr(mmap, "MADV_WILLNEED"):
            return
        starts = self.starts[faces] // mmap.PAGESIZE * mmap.PAGESIZE
        sizes = self.starts[faces] + self.shapes[faces].prod(1) - starts
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            self.pixels.base.madvise(mmap.MADV_WILLNEED, start, size)

    def select(self, chosen: np.ndarray | slice) -> ImageCache:
        """Select faces by indices, without copying pixels; a slice shares all memory."""
        shared = ("pixels", "file")
        columns = {name: column for name, column in vars(self).items() if name not in shared}
        return replace(self, **{name: taken(column, chosen) for name, column in columns.items()})


def decode(
    table: FaceTable, markup: Markup, gray: bool, margin: float | None, longest: int = 512
) -> tuple[ImageCache, dict[int, str]]:
    """Decode every image, or find the result of an earlier run.

    The cache is stored in fkp's cache folder under a digest of the images' bytes, the boxes and the
    arguments, so a changed image is never mistaken for the old one. Of several runs that start at
    the same time, one decodes and the others wait. A later run removes what a killed run has left.

    Args:
        table: F faces.
        markup: the meaning of the points.
        gray: decode to one channel, else to RGB.
        margin: side of the square cached around each face, in sides of the face box; None caches
            whole images.
        longest: cached crops with a longer side are resized to it, pixels.

    Returns:
        The cache of F faces; and for each face that cannot be used its index and the reason.

    Raises:
        FkpError: the cache cannot be read after it was written.
    """
    boxes = face_boxes(table, markup)
    crop_boxes = None if margin is None else boxes
    arguments = repr((VERSION, gray, margin, longest, reads_heic()))
    key = fingerprint(digests(table.paths), b"" if crop_boxes is None else crop_boxes, arguments)
    folder = cache_folder() / f"canvases-{key}"

    # Find the cache, or write it. Another process may have written it while this one waited.
    if (index := _read_index(folder)) is None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if (index := _read_index(folder)) is None:
                shutil.rmtree(folder, ignore_errors=True)  # damaged
                _write(folder, table, crop_boxes, gray, margin or 1.0, longest)
                index = _read_index(folder)
    if index is None:
        raise FkpError(f"{folder}: cannot be read after it was written; check the disk")

    columns = {name: index[name] for name in ("starts", "shapes", "affines", "extents")}
    file = folder / "pixels.bin"
    cache = ImageCache(_mapped(file), boxes=boxes, file=file, **columns)
    return cache, _reasons(table, boxes, index)


def _reasons(table: FaceTable, boxes: np.ndarray, index: dict[str, np.ndarray]) -> dict[int, str]:
    """Return why faces cannot be used, by their index: an unreadable image, or no face box."""
    unreadable = zip(index["bad"].tolist(), index["reasons"].tolist(), strict=True)
    reasons = {i: f"{table.paths[i].name}: {reason}" for i, reason in unreadable}

    has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
    for i in np.flatnonzero(~has_area).tolist():
        what = "its labelled points lie on one line, so no face box can be drawn around them"
        reasons.setdefault(i, what)
    return reasons


def _read_index(folder: Path) -> dict[str, np.ndarray] | None:
    """Read the columns of a stored cache; None if it is missing, incomplete or damaged."""
    try:
        data = _mapped(folder / "index")
        if fingerprint(data[DIGEST:]).encode() != data[:DIGEST].tobytes():
            return None
        with open(folder / "index", "rb") as file:
            file.seek(DIGEST)
            with np.load(file) as index:
                columns = {name: index[name] for name in index.files}
        complete = columns["end"] == (folder / "pixels.bin").stat().st_size
        return columns if complete else None
    except OSError:
        return None


def _mapped(file: Path) -> np.ndarray:
    """Map a file's bytes as a plain array, because slices of an np.memmap are slow to make."""
    with file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        mapping = mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_READ) if size else b""
    return np.ndarray(size, np.uint8, mapping)


def face_boxes(table: FaceTable, markup: Markup) -> np.ndarray:
    """Return the face boxes (F, 4) float32, IMAGE pixels.

    They are the table's own, and where it has none, those derived from the points.
    """
    boxes = table.boxes.astype(np.float32)
    for i in np.flatnonzero(~np.isfinite(table.boxes).all(1)):
        boxes[i] = face_box(table.points[i], markup)
    return boxes


def _write(
    folder: Path,
    table: FaceTable,
    boxes: np.ndarray | None,
    gray: bool,
    margin: float,
    longest: int,
) -> None:
    """Decode all faces of a table into a new cache folder, which appears only when complete."""
    # What a killed run has left; no other run writes, because this one holds the lock.
    for left in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(left, ignore_errors=True)

    def decode_one(i: int) -> Decoded | str:
        path = table.paths[i]
        try:
            image = read_image(path, gray)
        except FkpError as error:
            return str(error).removeprefix(f"{path}: ")
        pixels, affine = _crop(image, None if boxes is None else boxes[i], margin, longest)
        return Decoded(pixels, affine, (image.shape[1], image.shape[0]))

    count = len(table)
    faces = track(map_ahead(decode_one, range(count)), f"decoding {count} faces", count)
    with tempfile.TemporaryDirectory(
        prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True
    ) as temporary:
        with open(Path(temporary, "pixels.bin"), "wb") as file:
            columns = _write_pixels(file, faces, count)
            _sync(file)
        _write_index(Path(temporary), columns)
        os.rename(temporary, folder)


def _write_pixels(
    file: BinaryIO, faces: Iterable[Decoded | str], count: int
) -> dict[str, np.ndarray]:
    """Write the pixels of faces one after the other, and return the columns of the index.

    Args:
        file: opened for writing.
        faces: decoded faces, or the reason why one cannot be read.
        count: their number, F.
    """
    starts, shapes = np.zeros(count, np.int64), np.zeros((count, 3), np.int64)
    affines, extents = np.zeros((count, 2, 3)), np.zeros((count, 2), np.int64)
    reasons, end = {}, 0

    for i, face in enumerate(faces):
        if isinstance(face, str):
            reasons[i] = face
            face = NOTHING
        pixels, affines[i], extents[i] = face
        file.write(pixels.data)
        starts[i], shapes[i] = end, pixels.shape
        end += pixels.size

    return {
        "end": np.array(end),
        "starts": starts,
        "shapes": shapes,
        "affines": affines,
        "extents": extents,
        "bad": np.array(list(reasons), np.int64),
        "reasons": np.array(list(reasons.values()), str),
    }


def _write_index(folder: Path, columns: dict[str, np.ndarray]) -> None:
    """Write the index: the digest of an .npz archive, then the archive."""
    draft = folder / "draft"
    with draft.open("wb") as file:
        np.savez(file, **columns)  # type: ignore[arg-type]

    with open(folder / "index", "wb") as file:
        archive = _mapped(draft)
        file.write(fingerprint(archive).encode())
        file.write(archive.data)
        _sync(file)
    draft.unlink()


def _sync(file: BinaryIO) -> None:
    """Have the disk store what was written."""
    file.flush()
    os.fsync(file.fileno())


def _crop(
    image: np.ndarray, box: np.ndarray | None, margin: float, longest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Crop an image around a face box on whole pixels, and resize the crop if it is too large.

    Args:
        image: (H, W[, C]) uint8.
        box: (4,), IMAGE pixels; None keeps the whole image.
        margin: side of the crop, in sides of the box.
        longest: side to which a longer crop is resized, pixels.

    Returns:
        (h, w, C) uint8, and the affine (2, 3), IMAGE -> cached crop.
    """
    height, width = image.shape[:2]
    low, high = np.zeros(2, int), np.array([width, height])
    if box is not None:
        x, y, side = centre_and_side(box)
        edges = square(x, y, side * margin)
        low = np.clip(np.floor(edges[:2]).astype(int), 0, high - 1)
        high = np.clip(np.ceil(edges[2:]).astype(int) + 1, low + 1, high)
    crop = image[low[1] : high[1], low[0] : high[0]]
    affine = translation(-float(low[0]), -float(low[1]))

    factor = longest / max(crop.shape[:2])
    if factor < 1:
        size = (max(1, round(crop.shape[1] * factor)), max(1, round(crop.shape[0] * factor)))
        crop, affine = warp(crop, rescaling(factor), size), compose(affine, rescaling(factor))
    return np.ascontiguousarray(np.atleast_3d(crop)), affine
