"""Read the frames of a video file or a camera, each with its time."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fkp.errors import FkpError
from fkp.files import images

# How long OpenCV may take to open a video, and to read the bytes of each frame.
TIMEOUT_MS = 30_000

# FFmpeg detects a format by the content, not by the name: a playlist called .mp4 would make it
# open other files and network addresses. These containers hold their frames themselves.
CONTAINERS = (
    "mov,avi,matroska,asf,mpeg,mpegts,mpegvideo,m4v,"
    "flv,ogg,mxf,dv,rm,nut,ivf,h264,hevc,mjpeg,yuv4mpegpipe"
)
CAPTURE_OPTIONS = f"protocol_whitelist;file|format_whitelist;{CONTAINERS}"

# Some files and cameras report impossible frame rates; 1000 is the time unit of a file, not a rate.
DEFAULT_RATE = 25.0
MAX_RATE = 1000
MAX_COUNT = 1 << 40
MAX_SECONDS = 1e9

# An annotated video has at most this many frames for each frame of a video of variable rate.
MAX_REPEATS = 10


class Video:
    """The frames of a video or a camera, in order.

    Args:
        source: path of the video, or number of the camera.

    Attributes:
        rate: frames per second.
        count: number of frames, as the file's header says; None if it is unknown.
        duration: seconds, as the file's header says; None if it is unknown.
        untimed: frames read so far that had no time of their own.

    Raises:
        FkpError: it cannot be opened, or its frames are larger than `fkp.files.images.PIXELS`.
    """

    def __init__(self, source: Path | int):
        self.source = source
        self.capture = self._open()
        self._check_size()

        rate = float(self.capture.get(cv2.CAP_PROP_FPS))
        count = int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT))
        is_known = isinstance(source, Path) and 0 < count < MAX_COUNT
        self.rate = rate if 1 <= rate < MAX_RATE else DEFAULT_RATE
        self.count = count if is_known else None
        self.duration = self.count / rate if self.count and rate > 0 else None
        self.untimed = 0

    def __str__(self) -> str:
        return f"camera:{self.source}" if isinstance(self.source, int) else str(self.source)

    @property
    def live(self) -> bool:
        """Whether it is a camera, which never ends and does not wait for its reader."""
        return isinstance(self.source, int)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield each frame, RGB (H, W, 3) uint8. The frames can be read once."""
        return (frame for _, frame in self.timed_frames())

    def timed_frames(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield the time of each frame, in seconds, and the frame, RGB (H, W, 3) uint8.

        Times increase strictly. The frames can be read once.
        """
        start, seconds = time.monotonic(), -math.inf
        try:
            while True:
                success, frame = self.capture.read()
                if not success:
                    return
                seconds = time.monotonic() - start if self.live else self._time_after(seconds)
                yield seconds, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            self.capture.release()

    def constant_rate(self, max_frames: int | None = None) -> float:
        """Compute a constant rate at which every frame can be shown at its own time.

        A writer reaches it by repeating frames. The times are read from the file, without decoding
        a frame.

        Args:
            max_frames: number of frames at the beginning to examine; None for all.

        Returns:
            Frames per second.
        """
        if self.live or not isinstance(self.source, Path):
            return self.rate
        packets = open_video(self.source, cv2.CAP_PROP_FORMAT, -1)
        times: list[float] = []
        while len(times) != max_frames and packets.grab():
            times.append(packets.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        packets.release()
        return _constant_rate(np.sort(times), self.rate)

    def notes(self, frames: int, last: float) -> list[str]:
        """Describe what was unusual, after all frames have been read.

        Args:
            frames: number of frames read.
            last: time of the last one, seconds.
        """
        found = []
        if 0 < self.untimed == frames - 1:
            found.append(f"no times in the file: {self.rate:g} frames a second are assumed")

        if self.duration is not None:
            missing = self.duration - last - 1 / self.rate
            if missing > max(1.5 / self.rate, 0.05 * self.duration):
                found.append(
                    f"cut off or damaged: the last frame is at {last:.2f} s of "
                    f"{self.duration:.2f} s"
                )
        return found

    def _open(self) -> cv2.VideoCapture:
        if isinstance(self.source, int):
            capture = cv2.VideoCapture(self.source)
        elif os.path.isfile(self.source):
            capture = open_video(self.source)
        else:
            raise FkpError(f"{self}: no such file")
        if not capture.isOpened():
            raise FkpError(f"{self}: cannot be opened as a video")
        return capture

    def _check_size(self) -> None:
        width = self.capture.get(cv2.CAP_PROP_FRAME_WIDTH)
        height = self.capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        if width * height > images.PIXELS:
            raise FkpError(
                f"{self}: frames of {width:.0f} x {height:.0f} pixels; "
                f"fkp reads {images.PIXELS} at most"
            )

    def _time_after(self, previous: float) -> float:
        """Return the time of the frame read last: its own, or one frame after the previous."""
        own = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if previous == -math.inf:
            return own if abs(own) < MAX_SECONDS else 0.0
        if previous < own < previous + MAX_SECONDS:
            return own
        self.untimed += 1
        return previous + 1 / self.rate


def open_video(path: Path, *settings: int) -> cv2.VideoCapture:
    """Open a video file with OpenCV, without access to other files or the network.

    Args:
        path: of the video.
        settings: alternating keys and values for `cv2.VideoCapture`.

    Returns:
        The capture, which may not be opened: ask `isOpened()`.
    """
    timeouts = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS),
    ]

    # OpenCV takes these from the environment only. FFmpeg's own log stays silent: what is wrong is
    # raised or noted.
    options = {
        "OPENCV_FFMPEG_CAPTURE_OPTIONS": CAPTURE_OPTIONS,
        "OPENCV_FFMPEG_LOGLEVEL": os.environ.get("OPENCV_FFMPEG_LOGLEVEL", "-8"),
    }
    before = {name: os.environ[name] for name in options if name in os.environ}
    os.environ |= options
    try:
        # The path is absolute, so that FFmpeg does not take a file called concat:a|b for a
        # protocol; and in bytes, as OpenCV aborts the process on a name that is not valid UTF-8.
        name: Any = os.fsencode(path.absolute())
        return cv2.VideoCapture(name, cv2.CAP_FFMPEG, [*timeouts, *settings])
    finally:
        for option in options:
            del os.environ[option]
        os.environ |= before


def _constant_rate(times: np.ndarray, rate: float) -> float:
    """Return the frames per second that fit the times (N,), seconds, sorted."""
    if len(times) < 2 or times[0] == times[-1]:
        return rate

    # A regular video: every time is within half a frame of the rate's own.
    mean = (len(times) - 1) / (times[-1] - times[0])
    for regular in (rate, mean):
        offsets = (times - times[0]) * regular - np.arange(len(times))
        if np.abs(offsets).max() < 0.45:
            return float(regular)

    # A variable rate: the short steps count, but a single odd one must not make the video large.
    steps = np.diff(times)
    short = float(np.quantile(steps[steps > 0], 0.1))
    return float(max(1.0, min(1 / short, MAX_REPEATS * mean)))
