"""What is wrong with the files, whoever labelled them."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fkp.console import track
from fkp.data.table import FaceTable
from fkp.doctor.findings import Case, Finding
from fkp.errors import FkpError
from fkp.files.images import BYTES, header
from fkp.files.reading import read_bytes

ENDINGS = {"JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"}, "PNG": {".png"}, "BMP": {".bmp"}}
ENDINGS |= {
    "WEBP": {".webp"},
    "TIFF": {".tif", ".tiff"},
    "GIF": {".gif"},
    "PPM": {".ppm", ".pgm", ".pnm"},
}
SMALL, HUGE = (
    32,
    40_000_000,
)  # pixels: a side below which a face is a blur; an area that takes seconds to decode
ALIKE = 0.99  # correlation of two thumbnails; of 300-W's pairs above it, all 57 were the same photo or its neighbour
THUMBNAIL = 16
MANY = 60_000  # pictures; beyond these, comparing each with each takes more than minutes


@dataclass
class Picture:
    """What one file is."""

    digest: str = ""
    format: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    alpha: str = ""  # opaque or transparent, if there is any
    orientation: int = 1
    fault: str = ""
    thumbnail: np.ndarray | None = None


def look(paths: Iterable[Path]) -> dict[Path, Picture]:
    """Read each file once."""
    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        seen = track(pool.map(_look, unique), f"looking at {len(unique)} pictures", len(unique))
        return dict(zip(unique, seen, strict=True))


def _look(path: Path) -> Picture:
    try:
        data = read_bytes(path, BYTES)
    except FkpError as error:
        return Picture(fault=str(error).removeprefix(f"{path}: "))
    picture = Picture(hashlib.blake2b(data, digest_size=16).hexdigest())
    try:
        with header(data) as image:
            picture.format, picture.mode, picture.size = image.format or "", image.mode, image.size
            picture.orientation = int(image.getexif().get(274, 1) or 1)
            image.load()
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
                picture.alpha = "opaque" if lowest == 255 else "transparent"
            upright = (
                ImageOps.exif_transpose(image)
                .convert("L")
                .resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
            )
        pixels = np.asarray(upright, np.float32).ravel()
        pixels -= pixels.mean()
        norm = float(np.linalg.norm(pixels))
        picture.thumbnail = (
            pixels / norm if norm > 4 * THUMBNAIL else None
        )  # a flat picture is like any other
    except FkpError as error:
        picture.fault = str(error)
    except Exception as error:  # Pillow says that a picture is damaged in many ways
        picture.fault = f"cut off or damaged: {error}"
    return picture


def check(table: FaceTable, pictures: dict[Path, Picture], part: np.ndarray) -> Iterator[Finding]:
    """Look for what is wrong with the files.

    Args:
        part: (F,) each face's part in the split in use.
    """
    rows = defaultdict(list)
    for i, path in enumerate(table.paths):
        rows[path].append(i)

    def cases(chosen: dict[Path, str]) -> list[Case]:
        return [
            Case(table.rows[i], str(path), what)
            for path, what in chosen.items()
            for i in rows[path]
        ]

    damaged = {p: picture.fault for p, picture in pictures.items() if picture.fault}
    if damaged:
        yield Finding("error", "damaged picture", "files that are no whole picture", cases(damaged))
    ok = {path: picture for path, picture in pictures.items() if not picture.fault}
    misnamed = {
        path: f"is {picture.format}"
        for path, picture in ok.items()
        if path.suffix.lower() not in ENDINGS.get(picture.format, {path.suffix.lower()})
    }
    if misnamed:
        yield Finding(
            "warning", "misnamed", "the name's ending is not what the file is", cases(misnamed)
        )
    turned = {
        p: f"EXIF orientation {picture.orientation}"
        for p, picture in ok.items()
        if picture.orientation > 1
    }
    if turned:
        what = "stored turned: fkp reads them upright, as viewers do, and takes the labels to be upright too"
        yield Finding("warning", "EXIF rotation", what, cases(turned))
    for kind, level, what in (
        (
            "transparent",
            "warning",
            "pictures with transparent parts: alpha is dropped, whatever colour lies below",
        ),
        ("opaque", "note", "pictures with an alpha channel that is opaque everywhere"),
    ):
        if found := {p: picture.mode for p, picture in ok.items() if picture.alpha == kind}:
            yield Finding(level, "alpha", what, cases(found))  # type: ignore[arg-type]
    if small := {
        p: "{} x {}".format(*picture.size) for p, picture in ok.items() if min(picture.size) < SMALL
    }:
        yield Finding("warning", "tiny picture", f"a side below {SMALL} pixels", cases(small))
    if huge := {
        p: "{} x {}".format(*pic.size) for p, pic in ok.items() if pic.size[0] * pic.size[1] > HUGE
    }:
        yield Finding(
            "note", "huge picture", f"more than {HUGE // 1_000_000} megapixels", cases(huge)
        )
    yield from _twins(table, ok, {path: {part[i] for i in rows[path]} for path in ok}, rows)


def _twins(
    table: FaceTable,
    pictures: dict[Path, Picture],
    parts: dict[Path, set[str]],
    rows: dict[Path, list[int]],
) -> Iterator[Finding]:
    """Pictures that are there twice, to the byte or nearly."""
    by_digest: dict[str, list[Path]] = defaultdict(list)
    for path, picture in pictures.items():
        by_digest[picture.digest].append(path)
    same = [
        (a, b, 1.0) for twins in by_digest.values() for a, b in zip(twins, twins[1:], strict=False)
    ]
    paths = [path for path, picture in pictures.items() if picture.thumbnail is not None]
    near = []
    if len(paths) > MANY:
        yield Finding("note", "near duplicates", f"not looked for: more than {MANY} pictures")
    elif paths:
        thumbnails = np.stack([pictures[path].thumbnail for path in paths])  # type: ignore[misc]
        for start in range(0, len(paths), 1024):
            alike = thumbnails[start : start + 1024] @ thumbnails.T
            for i, j in zip(*np.nonzero(alike > ALIKE), strict=True):
                a, b = paths[start + i], paths[j]
                if start + i < j and pictures[a].digest != pictures[b].digest:
                    near.append((a, b, float(alike[i, j])))
    for kind, pairs in (("same", same), ("near", near)):
        across = [pair for pair in pairs if len(parts[pair[0]] | parts[pair[1]]) > 1]
        within = [pair for pair in pairs if len(parts[pair[0]] | parts[pair[1]]) == 1]
        name = "the same bytes" if kind == "same" else "nearly the same picture"
        levels = (
            ("error", "in different parts of the split", across),
            ("note", "in one part of the split", within),
        )
        for level, where, chosen in levels:
            found = [
                Case(
                    table.rows[rows[a][0]], str(a), f"and {table.rows[rows[b][0]]} ({likeness:.4f})"
                )
                for a, b, likeness in sorted(chosen, key=lambda pair: -pair[2])
            ]
            if found:
                check = "duplicates" if kind == "same" else "near duplicates"
                yield Finding(level, check, f"{name} twice, {where}", found)  # type: ignore[arg-type]
