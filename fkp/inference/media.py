"""Where pictures to look at come from: a file, a folder, a pattern, a list; a film or a camera."""

from __future__ import annotations

import glob
import hashlib
import itertools
import math
import os
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from fkp.errors import FkpError
from fkp.files.images import IMAGE_ENDINGS, PIXELS, VIDEO_ENDINGS, is_picture
from fkp.files.reading import read_text

# What OpenCV may read, as it was built.
CAMERA = re.compile(r"camera:(\d+)$")
LIST = 1 << 26  # bytes of a list of paths, at most
WAIT_MS = 30_000  # for a film to open, and for each frame's bytes
# FFmpeg looks at what a file is, not at its name: a playlist called .mp4 would lead it to other files and the network.
# All of these hold their frames themselves.
FILMS_ALONE = (
    "protocol_whitelist;file|format_whitelist;mov,avi,matroska,asf,mpeg,mpegts,mpegvideo,m4v"
)
FILMS_ALONE += ",flv,ogg,mxf,dv,rm,nut,ivf,h264,hevc,mjpeg,yuv4mpegpipe"
RESERVED = {
    "faces",
    "summary",
    "unfinished",
}  # files of a folder of results that belong to no image
NAME = 230  # bytes of the name of a result, without its ending: file systems take 255
REPEATS = 10  # frames of a constant rate for each one of a variable rate, on average and at most


@dataclass
class ImageCollection:
    """Several images and videos.

    Args:
        paths: of all of them.
        root: a folder above all of them, from which they are named.
        films: those that are videos.
    """

    paths: list[Path]
    root: Path
    films: set[Path] = field(default_factory=set)

    def names(self, numbered: bool = False) -> list[Path]:
        """For each path a name of its own for its results, without an ending, relative to wherever they go: below the
        root, without its own ending unless that tells it from another.

        Args:
            numbered: the results of `a` may also be called `a_1`, `a_2`, …
        """
        bare = [_below(path, self.root) for path in self.paths]
        count = Counter(_key(name.with_suffix("")) for name in bare)
        taken, names = set(RESERVED), []
        for name in bare:
            alone = _key(name.with_suffix(""))
            number = numbered and re.fullmatch(r"(.+)_\d+", alone)
            clear = count[alone] == 1 and not (number and number[1] in count)
            more = (name.with_name(f"{name.name}_{i}") for i in itertools.count(2))
            wanted = itertools.chain([name.with_suffix("")] if clear else [], [name], more)
            names.append(
                next(short for name in wanted if _key(short := _shortened(name)) not in taken)
            )
            taken.add(_key(names[-1]))
        return names


class Video:
    """The frames of a video or camera, in order.

    Args:
        source: path of the video, or the camera's number.

    Raises:
        FkpError: it cannot be opened, or its frames are larger than pictures may be.
    """

    def __init__(self, source: Path | int):
        self.source = source
        if isinstance(source, Path) and not os.path.isfile(source):
            raise FkpError(f"{source}: no such file")
        self.capture = cv2.VideoCapture(source) if isinstance(source, int) else _opened(source)
        if not self.capture.isOpened():
            raise FkpError(f"{self}: cannot be opened as a film")
        width, height = (
            self.capture.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width * height > PIXELS:
            raise FkpError(
                f"{self}: frames of {width:.0f} x {height:.0f} pixels; fkp reads {PIXELS} at most"
            )
        rate = float(self.capture.get(cv2.CAP_PROP_FPS))
        # Frames a second. Some files and cameras say nonsense; 1000 is the unit of a file's times, not a rate.
        self.rate = rate if 1 <= rate < 1000 else 25.0
        count = int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if isinstance(source, Path) and 0 < count < 1 << 40 else None
        self.lasts = (
            self.count / rate if self.count and rate > 0 else None
        )  # seconds, as the file says
        self.untimed = 0  # frames so far whose time was not in the file

    def __str__(self) -> str:
        return f"camera:{self.source}" if isinstance(self.source, int) else str(self.source)

    @property
    def live(self) -> bool:
        """Whether it is a camera: it never ends, and waits for nobody."""
        return isinstance(self.source, int)

    def __iter__(self) -> Iterator[np.ndarray]:
        """RGB (H, W, 3) uint8; once."""
        return (frame for _, frame in self.timed())

    def timed(self) -> Iterator[tuple[float, np.ndarray]]:
        """The time of each frame, seconds, always later than the one before; and RGB (H, W, 3) uint8; once."""
        began, seconds = time.monotonic(), -math.inf
        try:
            while True:
                there, frame = self.capture.read()
                if not there:
                    return
                seconds = time.monotonic() - began if self.live else self._after(seconds)
                yield seconds, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            self.capture.release()

    def _after(self, before: float) -> float:
        """When the frame that was read last is shown: its own time, or a frame later than the one before."""
        own = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if before < own < before + 1e9 or before == -math.inf:
            return own if abs(own) < 1e9 else 0.0
        self.untimed += 1
        return before + 1 / self.rate

    def constant_rate(self, most: int | None = None) -> float:
        """Frames a second with which a copy can show every frame at its own time, by repeating some of them.

        The times are read from the file, without decoding a frame.

        Args:
            most: frames at its beginning to look at; None for all.
        """
        if self.live or not isinstance(self.source, Path):
            return self.rate
        packets = _opened(self.source, cv2.CAP_PROP_FORMAT, -1)
        times: list[float] = []
        while len(times) != most and packets.grab():
            times.append(packets.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        packets.release()
        return _constant_rate(np.sort(times), self.rate)

    def remarks(self, frames: int, last: float) -> list[str]:
        """What was odd when all frames were read.

        Args:
            frames: how many there were.
            last: time of the last one, seconds.
        """
        found = []
        if 0 < self.untimed == frames - 1:
            found.append(f"no times in the file: {self.rate:g} frames a second are taken")
        missing = 0.0 if self.lasts is None else self.lasts - last - 1 / self.rate
        if self.lasts is not None and missing > max(1.5 / self.rate, 0.05 * self.lasts):
            found.append(
                f"cut off or damaged: the last frame is at {last:.2f} s of {self.lasts:.2f} s"
            )
        return found


def _constant_rate(times: np.ndarray, rate: float) -> float:
    """Frames a second that fit times (N,), seconds, rising."""
    if len(times) < 2 or times[0] == times[-1]:
        return rate
    mean = (len(times) - 1) / (times[-1] - times[0])
    for regular in (rate, mean):
        if np.abs((times - times[0]) * regular - np.arange(len(times))).max() < 0.45:
            return float(regular)
    steps = np.diff(times)
    short = float(np.quantile(steps[steps > 0], 0.1))  # one odd step shall not make a copy large
    return float(max(1.0, min(1 / short, REPEATS * mean)))


def _opened(film: Path, *settings: int) -> cv2.VideoCapture:
    # There is no argument for these. FFmpeg says nothing: what is wrong is raised or noted.
    quiet = os.environ.get("OPENCV_FFMPEG_LOGLEVEL", "-8")
    wanted = {"OPENCV_FFMPEG_CAPTURE_OPTIONS": FILMS_ALONE, "OPENCV_FFMPEG_LOGLEVEL": quiet}
    before = {name: value for name in wanted if (value := os.environ.get(name)) is not None}
    limits = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        WAIT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        WAIT_MS,
        *settings,
    ]
    os.environ |= wanted
    try:
        # Absolute, lest a file that is called concat:a|b be taken for what it says; and bytes: a name that is no text
        # would end the process.
        return cv2.VideoCapture(os.fsencode(film.absolute()), cv2.CAP_FFMPEG, limits)  # type: ignore[call-overload]
    finally:
        for name in wanted:
            del os.environ[name]
        os.environ |= before


def find(image: str, without: Path | None = None) -> Path | ImageCollection | Video:
    """What a user means by `image=…`.

    A file without the ending of a video is one if its content says so; in folders and patterns if it has no ending.

    Args:
        image: an image or video; a folder, with those below it; a pattern with `*`, `?` or `**`; a `.txt` file with a
            path a line, relative to that file's own folder; or `camera:0`.
        without: a folder that is left out of folders and patterns: where results go.

    Raises:
        FkpError: nothing is there.
    """
    path = Path(image).expanduser()
    # os.path, as pathlib raises where a name is longer than the file system has them.
    there, is_file = os.path.exists(path), os.path.isfile(path)
    camera = CAMERA.match(image)
    if camera and not there:
        return Video(int(camera[1]))
    if os.path.isdir(path):
        return _album(
            _walk(path),
            path,
            without,
            f"{path}: no picture in this folder or below it, nor a video",
        )
    if path.suffix.lower() == ".txt" and is_file:
        return _listed(path)
    if not there and glob.has_magic(image):
        matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        files = [
            (match, _called(match) or _unnamed(match)) for match in matches if os.path.isfile(match)
        ]
        return _album(
            [file for file in files if file[1]],
            None,
            without,
            f"{image}: matches no picture and no video",
        )
    return Video(path) if _called(path) == "film" or (is_file and _look(path) == "film") else path


def result_name(source: Path) -> Path:
    """What the results of one image or video are called, without an ending."""
    return _shortened(Path(source.stem))


def _called(path: Path) -> str:
    """`picture` or `film`, by a file's ending; empty for another one."""
    ending = path.suffix.lower()
    return "picture" if ending in IMAGE_ENDINGS else "film" if ending in VIDEO_ENDINGS else ""


def _unnamed(path: Path) -> str:
    """`picture` or `film`, by the content of a file without an ending."""
    return "" if path.suffix or not os.path.isfile(path) else _look(path)


def _look(path: Path) -> str:
    """`picture` or `film`, by a file's content; empty for anything else."""
    try:
        with path.open("rb") as file:
            if is_picture(file.read(256)):
                return "picture"
    except OSError:
        return ""
    film = _opened(path)
    try:
        return "film" if film.isOpened() else ""
    finally:
        film.release()


def _walk(folder: Path) -> list[tuple[Path, str]]:
    """All images and videos in a folder and below it, in the order of their names; hidden ones and linked folders left
    out."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(place) / name for name in sorted(files) if not name.startswith(".")]
        found += [(path, kind) for path in paths if (kind := _called(path) or _unnamed(path))]
    return found


def _listed(file: Path) -> ImageCollection:
    lines = dict.fromkeys(line.strip() for line in read_text(file, LIST).splitlines())
    if any("\0" in line for line in lines):
        raise FkpError(f"{file}: not a list of paths, but binary")
    paths = dict.fromkeys(file.parent / line for line in lines if line and not line.startswith("#"))
    files = [
        (path, _called(path) or (_look(path) if os.path.isfile(path) else "")) for path in paths
    ]
    return _album(files, None, None, f"{file}: names no picture and no video")


def _album(
    files: list[tuple[Path, str]], root: Path | None, without: Path | None, nothing: str
) -> ImageCollection:
    if without is not None:
        shut = without.resolve()
        # Unless it is the results themselves that are asked for.
        inside = root is not None and root.resolve().is_relative_to(shut)
        files = [
            (path, kind)
            for path, kind in files
            if inside or not path.resolve().is_relative_to(shut)
        ]
    if not files:
        raise FkpError(nothing)
    paths = [path for path, _ in files]
    if root is None:
        root = Path(
            os.path.commonpath([os.path.normpath(path.absolute().parent) for path in paths])
        )
    return ImageCollection(paths, root, {path for path, kind in files if kind == "film"})


def _key(name: Path) -> str:
    """The same for names that some file system takes for the same."""
    return unicodedata.normalize("NFC", str(name)).casefold()


def _shortened(name: Path) -> Path:
    """A path whose last part leaves room for endings; a long one ends with a hash of the whole."""
    whole = os.fsencode(name.name)
    if len(whole) <= NAME:
        return name
    mark = hashlib.blake2b(whole, digest_size=4).hexdigest()
    return name.with_name(f"{whole[: NAME - 9].decode('utf-8', 'ignore')}~{mark}")


def _below(path: Path, root: Path) -> Path:
    """A path relative to a folder above it; never one that leads out of it."""
    return Path(os.path.normpath(path.absolute())).relative_to(os.path.normpath(root.absolute()))
