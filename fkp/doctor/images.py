"""Check the image files of a data set: damaged, misnamed, rotated, tiny, or there twice."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile

from fkp.console import track
from fkp.data.table import FaceTable
from fkp.doctor.findings import Case, Finding, Level
from fkp.errors import FkpError
from fkp.files.images import BYTES, header
from fkp.files.reading import read_bytes

ENDINGS = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "PNG": {".png"},
    "BMP": {".bmp"},
    "WEBP": {".webp"},
    "TIFF": {".tif", ".tiff"},
    "GIF": {".gif"},
    "PPM": {".ppm", ".pgm", ".pnm"},
}
EXIF_ORIENTATION = 274

# Side, in pixels, below which a face is a blur; area, in pixels, that takes seconds to decode.
MIN_SIDE, MAX_AREA = 32, 40_000_000

# Side of the thumbnails that are compared.
THUMBNAIL = 16

# Correlation of the thumbnails of near duplicates. Of the pairs in 300-W above it, all 57 show the
# same photo or the next one of a series.
NEAR_DUPLICATE = 0.99

# With more images, comparing all pairs takes more than minutes.
MAX_COMPARED = 60_000

# Thumbnails that are compared with all others at once.
BLOCK = 1024

Pair = tuple[Path, Path, float]


@dataclass
class FileFacts:
    """What was read from one image file.

    Args:
        digest: hash of its bytes.
        format: as Pillow names it.
        mode: as Pillow names it.
        size: width and height as stored, pixels.
        alpha: `opaque` or `transparent`; empty without an alpha channel.
        orientation: of EXIF; 1 is upright.
        fault: why it cannot be read; empty if it can.
        thumbnail: (THUMBNAIL²,) float32 with mean 0 and norm 1; None for an image of one colour.
    """

    digest: str = ""
    format: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    alpha: str = ""
    orientation: int = 1
    fault: str = ""
    thumbnail: np.ndarray | None = None


def read_all(paths: Iterable[Path]) -> dict[Path, FileFacts]:
    """Read each image file once."""
    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        facts = track(pool.map(read_facts, unique), f"reading {len(unique)} images", len(unique))
        return dict(zip(unique, facts, strict=True))


def read_facts(path: Path) -> FileFacts:
    """Read one image file. A file that cannot be read has a `fault`."""
    try:
        data = read_bytes(path, BYTES)
    except FkpError as error:
        return FileFacts(fault=str(error).removeprefix(f"{path}: "))

    facts = FileFacts(hashlib.blake2b(data, digest_size=16).hexdigest())
    try:
        with header(data) as image:
            facts.format, facts.mode, facts.size = image.format or "", image.mode, image.size
            facts.orientation = int(image.getexif().get(EXIF_ORIENTATION, 1) or 1)
            image.load()
            facts.alpha = _alpha(image)
            facts.thumbnail = _thumbnail(image)
    except FkpError as error:
        facts.fault = str(error)
    except Exception as error:  # Pillow raises many types for damaged files
        facts.fault = f"cut off or damaged: {error}"
    return facts


def _alpha(image: ImageFile) -> str:
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return ""
    lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
    return "opaque" if lowest == 255 else "transparent"


def _thumbnail(image: ImageFile) -> np.ndarray | None:
    upright = ImageOps.exif_transpose(image).convert("L")
    small = upright.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float32).ravel()
    pixels -= pixels.mean()
    norm = float(np.linalg.norm(pixels))
    # An image of one colour correlates with any other.
    return pixels / norm if norm > 4 * THUMBNAIL else None


def check(table: FaceTable, facts: dict[Path, FileFacts], splits: np.ndarray) -> Iterator[Finding]:
    """Find faults of the image files.

    Args:
        table: F faces.
        facts: of each image file.
        splits: (F,) the split of each face under the protocol in use.
    """
    rows = defaultdict(list)
    for i, path in enumerate(table.paths):
        rows[path].append(i)

    for level, name, what, describe in _FILE_CHECKS:
        found = {path: said for path, fact in facts.items() if (said := describe(path, fact))}
        cases = [
            Case(table.rows[i], str(path), said) for path, said in found.items() for i in rows[path]
        ]
        if cases:
            yield Finding(level, name, what, cases)

    good = {path: fact for path, fact in facts.items() if not fact.fault}
    yield from _check_duplicates(table, good, splits, rows)


def _describe_good(
    describe: Callable[[Path, FileFacts], str],
) -> Callable[[Path, FileFacts], str]:
    """Apply a check only to files that can be read."""
    return lambda path, facts: "" if facts.fault else describe(path, facts)


def _misnamed(path: Path, facts: FileFacts) -> str:
    ending = path.suffix.lower()
    return f"is {facts.format}" if ending not in ENDINGS.get(facts.format, {ending}) else ""


def _rotated(path: Path, facts: FileFacts) -> str:
    return f"EXIF orientation {facts.orientation}" if facts.orientation > 1 else ""


def _transparent(path: Path, facts: FileFacts) -> str:
    return facts.mode if facts.alpha == "transparent" else ""


def _opaque(path: Path, facts: FileFacts) -> str:
    return facts.mode if facts.alpha == "opaque" else ""


def _tiny(path: Path, facts: FileFacts) -> str:
    return "{} x {}".format(*facts.size) if min(facts.size) < MIN_SIDE else ""


def _huge(path: Path, facts: FileFacts) -> str:
    return "{} x {}".format(*facts.size) if facts.size[0] * facts.size[1] > MAX_AREA else ""


# Level, name, sentence, and the function that describes the fault of a file (empty if it has none).
_FILE_CHECKS: list[tuple[Level, str, str, Callable[[Path, FileFacts], str]]] = [
    (
        "error",
        "damaged image",
        "files that cannot be read completely",
        lambda _, facts: facts.fault,
    ),
    ("warning", "misnamed", "the ending does not fit the format", _describe_good(_misnamed)),
    (
        "warning",
        "EXIF rotation",
        "stored rotated: fkp reads them upright, as viewers do, and expects labels of the upright "
        "image",
        _describe_good(_rotated),
    ),
    (
        "warning",
        "alpha",
        "images with transparent regions: alpha is ignored, and the colours below it are used",
        _describe_good(_transparent),
    ),
    (
        "note",
        "alpha",
        "images with an alpha channel that is opaque everywhere",
        _describe_good(_opaque),
    ),
    ("warning", "tiny image", f"a side below {MIN_SIDE} pixels", _describe_good(_tiny)),
    (
        "note",
        "huge image",
        f"more than {MAX_AREA // 1_000_000} megapixels",
        _describe_good(_huge),
    ),
]


def _check_duplicates(
    table: FaceTable,
    facts: dict[Path, FileFacts],
    splits: np.ndarray,
    rows: dict[Path, list[int]],
) -> Iterator[Finding]:
    """Find images that exist twice, exactly or nearly."""
    by_digest: dict[str, list[Path]] = defaultdict(list)
    for path, fact in facts.items():
        by_digest[fact.digest].append(path)
    same = [(a, b, 1.0) for twins in by_digest.values() for a, b in itertools.pairwise(twins)]

    comparable = [path for path, fact in facts.items() if fact.thumbnail is not None]
    near: list[Pair] = []
    if len(comparable) > MAX_COMPARED:
        what = f"not searched: more than {MAX_COMPARED} images"
        yield Finding("note", "near duplicates", what)
    elif comparable:
        near = _near_duplicates(comparable, facts)

    for check_name, what, pairs in (
        ("duplicates", "the same bytes twice", same),
        ("near duplicates", "nearly the same image twice", near),
    ):
        yield from _report_pairs(table, splits, rows, check_name, what, pairs)


def _near_duplicates(paths: list[Path], facts: dict[Path, FileFacts]) -> list[Pair]:
    """Find pairs of images with nearly the same thumbnail, but other bytes."""
    thumbnails = np.stack([facts[path].thumbnail for path in paths])  # type: ignore[misc]
    near = []
    for start in range(0, len(paths), BLOCK):
        correlation = thumbnails[start : start + BLOCK] @ thumbnails.T  # (BLOCK, images)
        for i, j in zip(*np.nonzero(correlation > NEAR_DUPLICATE), strict=True):
            a, b = paths[start + i], paths[j]
            if start + i < j and facts[a].digest != facts[b].digest:
                near.append((a, b, float(correlation[i, j])))
    return near


def _report_pairs(
    table: FaceTable,
    splits: np.ndarray,
    rows: dict[Path, list[int]],
    name: str,
    what: str,
    pairs: list[Pair],
) -> Iterator[Finding]:
    """Report pairs across splits as an error, and pairs within one as a note."""
    across: list[Pair] = []
    within: list[Pair] = []
    for a, b, correlation in sorted(pairs, key=lambda pair: -pair[2]):
        is_across = len({splits[i] for i in rows[a] + rows[b]}) > 1
        (across if is_across else within).append((a, b, correlation))

    levels: list[tuple[Level, str, list[Pair]]] = [
        ("error", "in different splits", across),
        ("note", "in one split", within),
    ]
    for level, where, chosen in levels:
        cases = [
            Case(
                table.rows[rows[a][0]],
                str(a),
                f"and {table.rows[rows[b][0]]} ({correlation:.4f})",
            )
            for a, b, correlation in chosen
        ]
        if cases:
            yield Finding(level, name, f"{what}, {where}", cases)
