"""Find the images and videos that a user names: file, folder, pattern, list or camera."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from fkp.errors import FkpError
from fkp.files.images import IMAGE_ENDINGS, VIDEO_ENDINGS, is_image_file
from fkp.files.reading import read_text
from fkp.inference.video import Video, open_video

CAMERA = re.compile(r"camera:(\d+)$")
MAX_LIST_BYTES = 1 << 26

# Files in a folder of results that belong to no image.
RESERVED = {"faces", "summary", "unfinished"}

# Bytes of a result's name without its ending: file systems allow 255.
MAX_NAME_BYTES = 230

Kind = Literal["image", "video", ""]


@dataclass
class ImageCollection:
    """Several images and videos.

    Args:
        paths: of all of them.
        root: a folder above all of them; names of results are relative to it.
        videos: those of the paths that are videos.
    """

    paths: list[Path]
    root: Path
    videos: set[Path] = field(default_factory=set)

    def relative(self, path: Path) -> PurePosixPath:
        """Return the name of one of the paths relative to the root, without `..`."""
        return PurePosixPath(relative_name(path, self.root).as_posix())

    def names(self, numbered: bool = False) -> list[Path]:
        """Choose a unique name for the results of each path.

        A name is relative to the folder of results and has no ending. It keeps the path's own
        ending only where two paths would otherwise share a name.

        Args:
            numbered: the results of `a` may also be called `a_1`, `a_2`, …
        """
        relative = [relative_name(path, self.root) for path in self.paths]
        stems = Counter(_key(name.with_suffix("")) for name in relative)
        taken, names = set(RESERVED), []
        for name in relative:
            candidates = map(_shortened, _candidates(name, stems, numbered))
            chosen = next(candidate for candidate in candidates if _key(candidate) not in taken)
            taken.add(_key(chosen))
            names.append(chosen)
        return names


def find(image: str, without: Path | None = None) -> Path | ImageCollection | Video:
    """Find what a user means by `image=…`.

    A file without a video's ending is a video if its content says so. In folders and patterns,
    only files without an ending are examined in that way.

    Args:
        image: an image or video; a folder, with all folders below it; a pattern with `*`, `?` or
            `**`; a `.txt` file with one path a line, relative to the folder of that file; or
            `camera:0`.
        without: a folder that is left out of folders and patterns: the one of the results.

    Raises:
        FkpError: nothing was found.
    """
    path = Path(image).expanduser()
    # os.path, as pathlib raises for a name that is longer than the file system allows.
    exists, is_file = os.path.exists(path), os.path.isfile(path)
    camera = CAMERA.match(image)

    if camera and not exists:
        return Video(int(camera[1]))
    if os.path.isdir(path):
        empty = f"{path}: no image or video in this folder or below it"
        return _collection(_walk(path), path, without, empty)
    if path.suffix.lower() == ".txt" and is_file:
        return _read_list(path)
    if not exists and glob.has_magic(image):
        empty = f"{image}: this pattern matches no image or video"
        return _collection(_match(path), None, without, empty)

    is_video = _kind_by_ending(path) == "video" or (is_file and _kind_by_content(path) == "video")
    return Video(path) if is_video else path


def result_name(source: Path) -> Path:
    """Return the name, without an ending, of the results of one image or video."""
    return _shortened(Path(source.stem))


def _kind_by_ending(path: Path) -> Kind:
    ending = path.suffix.lower()
    if ending in IMAGE_ENDINGS:
        return "image"
    return "video" if ending in VIDEO_ENDINGS else ""


def _kind_by_content(path: Path) -> Kind:
    try:
        with path.open("rb") as file:
            if is_image_file(file.read(256)):
                return "image"
    except OSError:
        return ""
    capture = open_video(path)
    try:
        return "video" if capture.isOpened() else ""
    finally:
        capture.release()


def _kind(path: Path) -> Kind:
    """Return the kind of a file by its ending, or by its content if it has no ending."""
    if path.suffix or not os.path.isfile(path):
        return _kind_by_ending(path)
    return _kind_by_ending(path) or _kind_by_content(path)


def _walk(folder: Path) -> list[tuple[Path, Kind]]:
    """List the images and videos in a folder and below it, sorted by name.

    Hidden files, hidden folders and linked folders are left out.
    """
    found: list[tuple[Path, Kind]] = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(place) / name for name in sorted(files) if not name.startswith(".")]
        found += [(path, kind) for path in paths if (kind := _kind(path))]
    return found


def _match(pattern: Path) -> list[tuple[Path, Kind]]:
    """List the images and videos that match a pattern, sorted by name."""
    matches = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]
    files = [path for path in matches if os.path.isfile(path)]
    return [(path, kind) for path in files if (kind := _kind(path))]


def _read_list(file: Path) -> ImageCollection:
    """Read a `.txt` file with one path a line; empty lines and lines with # are left out."""
    lines = dict.fromkeys(line.strip() for line in read_text(file, MAX_LIST_BYTES).splitlines())
    if any("\0" in line for line in lines):
        raise FkpError(f"{file}: not a list of paths, but binary")

    paths = dict.fromkeys(file.parent / line for line in lines if line and not line.startswith("#"))
    files: list[tuple[Path, Kind]] = []
    for path in paths:
        kind = _kind_by_ending(path)
        if not kind and os.path.isfile(path):
            kind = _kind_by_content(path)
        files.append((path, kind))
    return _collection(files, None, None, f"{file}: this list names no image or video")


def _collection(
    files: list[tuple[Path, Kind]], root: Path | None, without: Path | None, empty: str
) -> ImageCollection:
    """Build a collection of files outside the folder `without`; `empty` is the error if none is."""
    if without is not None:
        results = without.resolve()
        # The folder of results is only read if the user asks for it by name.
        is_wanted = root is not None and root.resolve().is_relative_to(results)
        files = [
            (path, kind)
            for path, kind in files
            if is_wanted or not path.resolve().is_relative_to(results)
        ]
    if not files:
        raise FkpError(empty)

    paths = [path for path, _ in files]
    if root is None:
        folders = [os.path.normpath(path.absolute().parent) for path in paths]
        root = Path(os.path.commonpath(folders))
    return ImageCollection(paths, root, {path for path, kind in files if kind == "video"})


def _candidates(name: Path, stems: Counter[str], numbered: bool) -> Iterator[Path]:
    """Yield the names that a path's results may have, best first.

    Args:
        name: the path, relative to the root.
        stems: how many paths have each name without its ending.
        numbered: as for `ImageCollection.names`.
    """
    stem = _key(name.with_suffix(""))
    number = re.fullmatch(r"(.+)_\d+", stem) if numbered else None
    if stems[stem] == 1 and not (number and number[1] in stems):
        yield name.with_suffix("")
    yield name
    for i in itertools.count(2):
        yield name.with_name(f"{name.name}_{i}")


def _key(name: Path) -> str:
    """Return a key that is equal for names that some file system does not tell apart."""
    return unicodedata.normalize("NFC", str(name)).casefold()


def _shortened(name: Path) -> Path:
    """Shorten the last part of a path to leave room for endings; a hash replaces the rest."""
    encoded = os.fsencode(name.name)
    if len(encoded) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.blake2b(encoded, digest_size=4).hexdigest()
    start = encoded[: MAX_NAME_BYTES - 9].decode("utf-8", "ignore")
    return name.with_name(f"{start}~{digest}")


def relative_name(path: Path, root: Path) -> Path:
    """Return a path relative to a folder above it, without `..`."""
    return Path(os.path.normpath(path.absolute())).relative_to(os.path.normpath(root.absolute()))
