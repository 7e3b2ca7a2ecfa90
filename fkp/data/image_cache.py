"""Decode once: every face's surroundings as raw pixels in one memory-mapped file."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import FileLock

from fkp.console import track
from fkp.data.columns import BLOCK, Texts, taken
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

VERSION = 5  # of the cached file; raise it when its layout changes, or how images are read
Made = (
    tuple[np.ndarray, np.ndarray, tuple[int, int]] | str
)  # canvas, affine, extent; or why there is none
T = TypeVar("T")
AHEAD = 256  # faces that may be decoded before they are written: a set larger than memory passes through


@dataclass(frozen=True)
class ImageCache:
    """The pixels round F faces, decoded, in one flat uint8 array.

    Args:
        pixels: (bytes,) uint8, all canvases one after the other.
        starts: (F,) int64, where each begins.
        shapes: (F, 3) int64, its height, width and channels; no pixels where a picture cannot be read.
        affines: (F, 2, 3), IMAGE -> canvas.
        extents: (F, 2), width and height of the whole picture, IMAGE pixels.
        boxes: (F, 4), the face boxes, IMAGE pixels.
        file: the file that pixels is a view of, if it is: a process that is handed the canvases then maps it anew.
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
        """(h, w, C) uint8 of one face, a view."""
        shape, start = self.shapes[index], self.starts[index]
        return self.pixels[start : start + int(np.prod(shape))].reshape(shape)

    def prefetch(self, faces: Sequence[int] | np.ndarray) -> None:
        """Have the kernel read all of these faces now, and nothing round them.

        Left to itself it reads each page when it is touched, and half a megabyte round it: from a disk, five times as
        slowly.
        """
        if isinstance(self.pixels.base, mmap.mmap) and hasattr(mmap, "MADV_WILLNEED"):
            starts = self.starts[faces] // mmap.PAGESIZE * mmap.PAGESIZE
            sizes = self.starts[faces] + self.shapes[faces].prod(1) - starts
            for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
                self.pixels.base.madvise(mmap.MADV_WILLNEED, start, size)

    def select(self, chosen: np.ndarray | slice) -> ImageCache:
        """Those of the faces at these indices; no pixel is copied, and of a slice nothing."""
        same = ("pixels", "file")
        return replace(
            self,
            **{
                name: taken(column, chosen)
                for name, column in vars(self).items()
                if name not in same
            },
        )


def decode(
    table: FaceTable, markup: Markup, gray: bool, margin: float | None, longest: int = 512
) -> tuple[ImageCache, dict[int, str]]:
    """Decode every picture once, or find the result of an earlier time.

    The result is kept in fkp's cache folder under a name made of the pictures' bytes, the labels and the arguments: a
    changed picture is never mistaken for the old one. Of runs that start together one decodes and the others wait;
    what a killed one leaves behind is cleared away by the next.

    Args:
        table: F faces.
        gray: one channel, else RGB.
        margin: side of the square kept round each face, in face-box sides; None keeps the whole picture.
        longest: canvases with a longer side are shrunk to it, pixels.

    Returns:
        F canvases; and what is wrong with those that cannot be used, by their index.
    """
    boxes = face_boxes(table, markup)
    kept = None if margin is None else boxes
    key = fingerprint(
        _contents(table.paths),
        b"" if kept is None else kept,
        repr((VERSION, gray, margin, longest, reads_heic())),
    )
    folder = cache_folder() / f"canvases-{key}"
    if (index := _index(folder)) is None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if (index := _index(folder)) is None:
                shutil.rmtree(folder, ignore_errors=True)  # damaged
                _write(folder, table, kept, gray, margin or 1.0, longest)
                index = _index(folder)
    if index is None:
        raise FkpError(
            f"{folder}: cannot be read again after it was written; is the disk in order?"
        )
    columns = {name: index[name] for name in ("starts", "shapes", "affines", "extents")}
    told = zip(index["bad"].tolist(), index["reasons"].tolist(), strict=True)
    reasons = {i: f"{table.paths[i].name}: {reason}" for i, reason in told}
    for i in np.flatnonzero(~(boxes[:, 2:] > boxes[:, :2]).all(1)).tolist():
        reasons.setdefault(
            i, "its labelled points lie on one line, so no face box can be drawn round them"
        )
    file = folder / "pixels.bin"
    return ImageCache(_mapped(file), boxes=boxes, file=file, **columns), reasons


def _index(folder: Path) -> dict[str, np.ndarray] | None:
    """What the cached file says of its pixels, if it is there as it was written, to the byte."""
    try:
        said = _mapped(folder / "index")
        if fingerprint(said[16:]).encode() != said[:16].tobytes():
            return None
        with open(folder / "index", "rb") as file:
            file.seek(16)
            with np.load(file) as index:
                columns = {name: index[name] for name in index.files}
        return columns if columns["end"] == (folder / "pixels.bin").stat().st_size else None
    except OSError:
        return None


def _mapped(file: Path) -> np.ndarray:
    """A file's bytes, mapped, as a plain array: slices of a memmap are slow to make."""
    with file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        mapping = mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_READ) if size else b""
    return np.ndarray(size, np.uint8, mapping)


def face_boxes(table: FaceTable, markup: Markup) -> np.ndarray:
    """(F, 4) float32: the table's own boxes, and where it has none, those drawn round the points; IMAGE pixels."""
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
    for left in folder.parent.glob(f".{folder.name}-*"):  # by a killed run: the lock is ours
        shutil.rmtree(left, ignore_errors=True)

    def one(index: int) -> Made:
        path = table.paths[index]
        try:
            image = read_image(path, gray)
        except FkpError as error:
            return str(error).removeprefix(f"{path}: ")
        canvas, affine = _canvas(image, None if boxes is None else boxes[index], margin, longest)
        return canvas, affine, (image.shape[1], image.shape[0])

    with tempfile.TemporaryDirectory(
        prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True
    ) as half:
        count, reasons, end = len(table), {}, 0
        starts, shapes, extents = (
            np.zeros(count, np.int64),
            np.zeros((count, 3), np.int64),
            np.zeros((count, 2), np.int64),
        )
        affines = np.zeros((count, 2, 3))
        with open(Path(half, "pixels.bin"), "wb") as file:
            for i, made in enumerate(
                track(_ahead(one, range(count)), f"decoding {count} faces", count)
            ):
                if isinstance(made, str):
                    reasons[i] = made
                    made = np.zeros((0, 0, 1), np.uint8), IDENTITY, (0, 0)
                canvas, affines[i], extents[i] = made
                file.write(canvas.data)
                starts[i], shapes[i] = end, canvas.shape
                end += canvas.size
            file.flush()
            os.fsync(file.fileno())
        columns = {
            "end": end,
            "starts": starts,
            "shapes": shapes,
            "affines": affines,
            "extents": extents,
        }
        bad, told = np.array(list(reasons), np.int64), np.array(list(reasons.values()), str)
        draft = Path(half, "draft")
        with draft.open("wb") as file:
            np.savez(file, **columns, bad=bad, reasons=told)  # type: ignore[arg-type]
        with open(Path(half, "index"), "wb") as file:
            written = _mapped(draft)
            file.write(fingerprint(written).encode())
            file.write(written.data)
            file.flush()
            os.fsync(file.fileno())
        draft.unlink()
        os.rename(half, folder)  # whole or not at all


def _ahead(one: Callable[[int], T], indices: Sequence[int] | np.ndarray) -> Iterator[T]:
    """Results of one(i) in order, made by threads (OpenCV frees the interpreter), AHEAD at a time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(indices), AHEAD):
            yield from pool.map(one, indices[start : start + AHEAD])


def _canvas(
    image: np.ndarray, box: np.ndarray | None, margin: float, longest: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part (h, w, C) of a picture round a face box, on whole pixels, and the affine IMAGE -> canvas."""
    height, width = image.shape[:2]
    low, high = np.zeros(2, int), np.array([width, height])
    if box is not None:
        x, y, side = centre_and_side(box)
        edges = square(x, y, side * margin)
        low = np.clip(np.floor(edges[:2]).astype(int), 0, high - 1)
        high = np.clip(np.ceil(edges[2:]).astype(int) + 1, low + 1, high)
    part = image[low[1] : high[1], low[0] : high[0]]
    affine = translation(-float(low[0]), -float(low[1]))
    factor = longest / max(part.shape[:2])
    if factor < 1:
        size = (max(1, round(part.shape[1] * factor)), max(1, round(part.shape[0] * factor)))
        part, affine = warp(part, rescaling(factor), size), compose(affine, rescaling(factor))
    return np.ascontiguousarray(np.atleast_3d(part)), affine


def _contents(paths: Texts[Path]) -> bytes:
    """A digest of each file's bytes. A file whose size, times and inode are those of last time is not read again."""
    record = np.zeros(len(paths), [("stat", np.int64, 4), ("digest", np.uint8, 16)])
    names = ""
    for start in range(0, len(paths), BLOCK):
        some = paths[start : start + BLOCK].tolist()
        names = fingerprint(names, "\0".join(str(path.resolve()) for path in some))
        for i, path in enumerate(some, start):
            try:
                stat = path.stat()
                record["stat"][i] = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
            except OSError:
                pass  # vanished since the table was read: decoding will say so
    changed = np.ones(len(paths), bool)
    file = cache_folder() / f"contents-{names}.bin"
    # As many bytes as that are such a file, whatever they are: what has changed since is read anew.
    if file.is_file() and file.stat().st_size == record.nbytes:
        last = np.fromfile(file, record.dtype)
        record["digest"], changed = last["digest"], (last["stat"] != record["stat"]).any(1)
    if changed.any():
        todo = np.flatnonzero(changed)
        for i, digest in zip(todo.tolist(), _ahead(lambda i: _digest(paths[i]), todo), strict=True):
            record["digest"][i] = 0 if digest is None else digest
            if digest is None:
                record["stat"][i] = -1  # not to be remembered: the next run reads it again
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=file.parent, prefix=f".{file.name}-", delete=False
        ) as half:
            half.write(record.data)
        os.replace(half.name, file)
    return record["digest"].tobytes()


def _digest(path: Path) -> np.ndarray | None:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return None
    return np.frombuffer(digest.digest(), np.uint8)
