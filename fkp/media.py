"""Where pictures to look at come from: a file, a folder, a pattern, a list; a film or a camera."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fkp.errors import FkpError
from fkp.files import read_text
from fkp.pictures import PIXELS

# What OpenCV may read, as it was built.
PICTURES = [".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"]
PICTURES += [".pnm", ".ppm", ".tif", ".tiff", ".webp"]
FILMS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
CAMERA = re.compile(r"camera:(\d+)$")
LIST = 1 << 26  # bytes of a list of paths, at most
WAIT_MS = 30_000  # for a film to open, and for each frame's bytes
# FFmpeg looks at what a file is, not at its name: a playlist called .mp4 would lead it to other files and the network.
FILMS_ALONE = "protocol_whitelist;file|format_whitelist;mov,avi,matroska,asf,mpeg,mpegts,mpegvideo,m4v"


@dataclass
class Album:
    """Several pictures.

    Args:
        paths: of the pictures.
        root: a folder above all of them, from which they are named.
    """

    paths: list[Path]
    root: Path

    def names(self) -> list[Path]:
        """For each picture a path of its own, without an ending, relative to wherever its results go: below the root,
        without its own ending unless that tells it from another."""
        bare = [_below(path, self.root) for path in self.paths]
        taken: dict[str, int] = {}
        for name in bare:
            key = str(name.with_suffix("")).casefold()  # some file systems take no notice of case
            taken[key] = taken.get(key, 0) + 1
        return [name if taken[str(name.with_suffix("")).casefold()] > 1 else name.with_suffix("") for name in bare]


class Film:
    """The frames of a film or camera, in order.

    Args:
        source: path of the film, or the camera's number.

    Raises:
        FkpError: it cannot be opened, or its frames are larger than pictures may be.
    """

    def __init__(self, source: Path | int):
        self.source = source
        if isinstance(source, Path) and not source.is_file():
            raise FkpError(f"{source}: no such file")
        self.capture = cv2.VideoCapture(source) if isinstance(source, int) else _opened(source)
        if not self.capture.isOpened():
            raise FkpError(f"{self}: cannot be opened as a film")
        width, height = (self.capture.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > PIXELS:
            raise FkpError(f"{self}: frames of {width:.0f} x {height:.0f} pixels; fkp reads {PIXELS} at most")
        rate = float(self.capture.get(cv2.CAP_PROP_FPS))
        self.rate = rate if 1 <= rate <= 1000 else 25.0  # frames a second; some files and cameras say nonsense
        count = int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if isinstance(source, Path) and 0 < count < 1 << 40 else None

    def __str__(self) -> str:
        return f"camera:{self.source}" if isinstance(self.source, int) else str(self.source)

    @property
    def live(self) -> bool:
        """Whether it is a camera: it never ends, and waits for nobody."""
        return isinstance(self.source, int)

    def __iter__(self) -> Iterator[np.ndarray]:
        """RGB (H, W, 3) uint8; once."""
        try:
            while True:
                there, frame = self.capture.read()
                if not there:
                    return
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            self.capture.release()


def _opened(film: Path) -> cv2.VideoCapture:
    name, before = "OPENCV_FFMPEG_CAPTURE_OPTIONS", os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS")
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, WAIT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, WAIT_MS]
    os.environ[name] = FILMS_ALONE  # there is no argument for it
    try:
        # Absolute, lest a file that is called concat:a|b be taken for what it says; and bytes: a name that is no text
        # would end the process.
        return cv2.VideoCapture(os.fsencode(film.absolute()), cv2.CAP_FFMPEG, limits)  # type: ignore[call-overload]
    finally:
        del os.environ[name]
        os.environ |= {} if before is None else {name: before}


def find(image: str, without: Path | None = None) -> Path | Album | Film:
    """What a user means by `image=…`.

    Args:
        image: a picture or film; a folder, with those below it; a pattern with `*`, `?` or `**`; a `.txt` file with a
            path a line, relative to that file's own folder; or `camera:0`.
        without: a folder that is left out of folders and patterns: where results go.

    Raises:
        FkpError: nothing is there.
    """
    path = Path(image).expanduser()
    camera = CAMERA.match(image)
    if camera and not path.exists():
        return Film(int(camera[1]))
    if path.is_dir():
        return _album(_walk(path), path, without, f"{path}: no picture in this folder or below it")
    if path.suffix.lower() == ".txt" and path.is_file():
        return _listed(path)
    if path.suffix.lower() in FILMS:
        return Film(path)
    if not path.exists() and glob.has_magic(image):
        matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        some = [match for match in matches if match.is_file() and match.suffix.lower() in PICTURES]
        return _album(some, None, without, f"{image}: matches no picture")
    return path


def _walk(folder: Path) -> list[Path]:
    """All pictures in a folder and below it, in the order of their names; hidden ones and linked folders left out."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = sorted(name for name in files if not name.startswith("."))
        found += [Path(place) / name for name in names if Path(name).suffix.lower() in PICTURES]
    return found


def _listed(file: Path) -> Album:
    lines = dict.fromkeys(line.strip() for line in read_text(file, LIST).splitlines())
    if any("\0" in line for line in lines):
        raise FkpError(f"{file}: not a list of paths, but binary")
    paths = dict.fromkeys(file.parent / line for line in lines if line and not line.startswith("#"))
    return _album(list(paths), None, None, f"{file}: names no picture")


def _album(paths: list[Path], root: Path | None, without: Path | None, nothing: str) -> Album:
    if without is not None:
        shut = without.resolve()
        # Unless it is the results themselves that are asked for.
        inside = root is not None and root.resolve().is_relative_to(shut)
        paths = [path for path in paths if inside or not path.resolve().is_relative_to(shut)]
    if not paths:
        raise FkpError(nothing)
    if root is None:
        root = Path(os.path.commonpath([os.path.normpath(path.absolute().parent) for path in paths]))
    return Album(paths, root)


def _below(path: Path, root: Path) -> Path:
    """A path relative to a folder above it; never one that leads out of it."""
    return Path(os.path.normpath(path.absolute())).relative_to(os.path.normpath(root.absolute()))
