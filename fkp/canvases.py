"""Decode once: every face's surroundings as raw pixels in one memory-mapped file."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fkp.cache import cache_folder, fingerprint
from fkp.errors import FkpError
from fkp.geometry import centre_and_side, compose, face_box, rescaling, square, translation, warp
from fkp.markup import Markup
from fkp.pictures import read_picture
from fkp.progress import track
from fkp.sources.table import FaceTable, refuse

VERSION = 1  # of the layout of the cached file; raise it when that changes


@dataclass(frozen=True)
class Canvases:
    """The pixels round F faces, decoded, as one flat uint8 array.

    Args:
        pixels: (bytes,) uint8, all canvases one after the other.
        starts: (F,) int64, where each begins.
        shapes: (F, 2) or (F, 3), its height, width (and colours).
        affines: (F, 2, 3), IMAGE -> canvas.
        extents: (F, 2), width and height of the whole picture, IMAGE pixels.
    """

    pixels: np.ndarray
    starts: np.ndarray
    shapes: np.ndarray
    affines: np.ndarray
    extents: np.ndarray

    def __getitem__(self, index: int) -> np.ndarray:
        shape = self.shapes[index]
        start = self.starts[index]
        return self.pixels[start : start + int(np.prod(shape))].reshape(shape)


def decode(table: FaceTable, markup: Markup, gray: bool, margin: float | None, longest: int = 512) -> Canvases:
    """Decode every picture once, or find the result of an earlier time.

    Args:
        gray: one channel, else RGB.
        margin: side of the square kept round each face, in face-box sides; None keeps the whole picture.
        longest: canvases with a longer side are shrunk to it, pixels.

    Raises:
        FkpError: pictures that cannot be read, all of them named with their rows.
    """
    stats = [path.stat() for path in table.paths]
    key = fingerprint(
        *(f"{path.resolve()}\0{s.st_size}\0{s.st_mtime_ns}" for path, s in zip(table.paths, stats, strict=True)),
        np.ascontiguousarray(table.points).tobytes(),
        repr((VERSION, gray, margin, longest, markup.as_dict())),
    )
    folder = cache_folder() / f"canvases-{key}"
    if not folder.exists():
        _write(folder, table, markup, gray, margin, longest)
    index = np.load(folder / "index.npz")
    pixels = np.memmap(folder / "pixels.bin", np.uint8, mode="r")
    return Canvases(pixels, **{name: index[name] for name in ("starts", "shapes", "affines", "extents")})


def _write(folder: Path, table: FaceTable, markup: Markup, gray: bool, margin: float | None, longest: int) -> None:
    def one(index: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]] | str:
        try:
            image = read_picture(table.paths[index], gray)
        except FkpError as error:
            return f"{table.rows[index]}: {error}"
        box = None if margin is None else face_box(table.points[index], markup)
        return *_canvas(image, box, margin or 1.0, longest), (image.shape[1], image.shape[0])

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as half:
        starts, shapes, affines, extents, faults, end = [], [], [], [], [], 0
        # OpenCV frees the interpreter while it decodes, so threads are enough.
        with open(Path(half, "pixels.bin"), "wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
            for made in track(pool.map(one, range(len(table))), f"decoding {len(table)} faces", len(table)):
                if isinstance(made, str):
                    faults.append(made)
                    continue
                canvas, affine, extent = made
                file.write(canvas.tobytes())
                starts.append(end)
                shapes.append(canvas.shape)
                affines.append(affine)
                extents.append(extent)
                end += canvas.size
            file.flush()
            os.fsync(file.fileno())
        refuse(faults, "pictures")
        np.savez(
            Path(half, "index.npz"),
            starts=np.array(starts, np.int64),
            shapes=np.array(shapes, np.int64),
            affines=np.array(affines),
            extents=np.array(extents, np.int64),
        )
        try:
            os.rename(half, folder)  # whole or not at all; a run that was quicker has written the same
            os.mkdir(half)  # TemporaryDirectory wants something to remove
        except OSError:
            if not folder.exists():
                raise


def _canvas(image: np.ndarray, box: np.ndarray | None, margin: float, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of a picture round a face box, on whole pixels, and the affine IMAGE -> canvas."""
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
    return np.ascontiguousarray(part), affine
