"""Write the faces of videos: an annotated video, a table of faces and frames, and a summary."""

from __future__ import annotations

import csv
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fkp import console
from fkp.console import track
from fkp.detectors import describe
from fkp.draw import draw
from fkp.errors import FkpError
from fkp.face import Face
from fkp.inference.media import result_name
from fkp.inference.predictor import Predictor
from fkp.inference.result_files import ResultFolder, csv_header, csv_row
from fkp.inference.video import Video

# Numbers and smooths the faces of a frame, given its time in seconds.
Follower = Callable[[list[Face], float], list[Face]]

# A frame is repeated at most this often in an annotated video, however long it is shown.
MAX_STILL_FRAMES = 1000


class VideoWriter:
    """Find the faces of videos, and write them.

    Args:
        predictor: finds the faces.
        results: where to write them.
        ckpt: the checkpoint's path, for the JSON files.
        drawn: whether to write an annotated video.
        threads: of the stream of frames; None for all cores, 1 for a plain loop.
    """

    def __init__(
        self,
        predictor: Predictor,
        results: ResultFolder,
        ckpt: str | None,
        drawn: bool,
        threads: int | None = None,
    ):
        self.predictor, self.results = predictor, results
        self.ckpt, self.drawn, self.threads = ckpt, drawn, threads

    def write(
        self,
        video: Video,
        follow: Follower | None,
        max_frames: int | None = None,
        name: Path | None = None,
    ) -> dict[str, Any]:
        """Write an annotated video, a table with one row a face and frame, and a summary.

        The annotated video has a constant rate and the duration of the original: where the rate of
        the original varies, frames are repeated. Ctrl-C ends it after the current frame.

        Args:
            video: its frames.
            follow: numbers and smooths the faces; see `fkp.inference.tracking.Tracker`.
            max_frames: number of frames to process; None for all.
            name: of the results; None for the name of the source.

        Returns:
            detector, frames, faces, tracks, without_face, stopped (by Ctrl-C), notes, seconds,
            frames_per_second.

        Raises:
            FkpError: no frame can be read, a result would overwrite the video, or this OpenCV
                cannot write videos.
        """
        check_max_frames(max_frames)
        name = name or _default_name(video)
        self.results.check_overwrite(video.source, name, ["csv", "mp4", "json"])

        start = time.monotonic()
        tally = self._write_frames(video, follow, max_frames, name)
        frames = len(tally.faces)
        if not frames:
            self.results.file(name, "csv").unlink()
            raise FkpError(f"{video}: no frame of it can be read")
        seconds = time.monotonic() - start

        is_cut = tally.stopped or frames == max_frames
        summary = {
            "detector": describe(self.predictor.detector),
            "frames": frames,
            "faces": sum(tally.faces),
            "tracks": len(tally.tracks - {None}),
            "without_face": tally.faces.count(0),
            "stopped": tally.stopped,
            "notes": [] if is_cut else video.notes(frames, tally.last),
            "seconds": round(seconds, 2),
            "frames_per_second": round(frames / seconds, 2),
        }
        self.results.write_record(name, {"video": str(video), "ckpt": self.ckpt} | summary)
        return summary

    def _write_frames(
        self, video: Video, follow: Follower | None, max_frames: int | None, name: Path
    ) -> _Tally:
        """Write the table and the annotated video, frame by frame."""
        markup, tally, annotated = self.predictor.markup, _Tally(), None
        self.results.make_parent(name)
        if self.drawn:
            rate = video.constant_rate(max_frames)
            annotated = AnnotatedVideo(self.results.file(name, "mp4"), rate)

        with self.results.file(name, "csv").open("w", encoding="utf-8", newline="") as out:
            table = csv.writer(out)
            table.writerow(["frame", "seconds", "track", *csv_header(markup)])
            try:
                for number, (seconds, frame, faces) in enumerate(self._frames(video, max_frames)):
                    followed = follow(faces, seconds) if follow else faces
                    tally.add(followed, seconds)
                    table.writerows(
                        [number, round(seconds, 4), face.track, *csv_row(face)] for face in followed
                    )
                    if annotated is not None:
                        annotated.write(draw(frame, followed, markup), seconds)
            except KeyboardInterrupt:
                tally.stopped = True
                console.print_line(f"stopped after {len(tally.faces)} frames")
            finally:
                if annotated is not None:
                    annotated.close()
        return tally

    def _frames(
        self, video: Video, max_frames: int | None
    ) -> Iterator[tuple[float, np.ndarray, list[Face]]]:
        """Yield the time of each frame, in seconds, the frame, and its faces."""
        pending: deque[tuple[float, np.ndarray]] = deque()

        def frames() -> Iterator[np.ndarray]:
            for seconds, frame in itertools.islice(video.timed_frames(), max_frames):
                pending.append((seconds, frame))
                yield frame

        # The predictor processes a file in batches. A camera does not wait: frame by frame.
        if video.live:
            found: Iterator[list[Face]] = (self.predictor(frame) for frame in frames())
        else:
            found = iter(self.predictor.stream(frames(), threads=self.threads))
        for faces in track(found, str(video), max_frames or video.count):
            yield *pending.popleft(), faces


@dataclass
class _Tally:
    """What was counted in a video so far.

    Args:
        faces: number of faces of each frame.
        tracks: numbers of the faces; None for a face without a number.
        last: time of the last frame, seconds.
        stopped: whether Ctrl-C ended it.
    """

    faces: list[int] = field(default_factory=list)
    tracks: set[int | None] = field(default_factory=set)
    last: float = 0.0
    stopped: bool = False

    def add(self, faces: list[Face], seconds: float) -> None:
        self.faces.append(len(faces))
        self.tracks |= {face.track for face in faces}
        self.last = seconds


class AnnotatedVideo:
    """A video file of a constant rate, written frame by frame.

    Args:
        file: where to.
        rate: frames per second.
    """

    def __init__(self, file: Path, rate: float):
        self.file, self.rate, self.count = file, rate, 0
        self.writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray, seconds: float) -> None:
        """Show a frame, RGB (H, W, 3) uint8, from this time on, and the previous one until then.

        A frame of another size than the first is resized.

        Raises:
            FkpError: this OpenCV cannot write videos.
        """
        pixels = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        size = pixels.shape[1::-1]
        if self.writer is None:
            self.writer, self.size = _open_writer(self.file, self.rate, size), size
            self.start, self.last = seconds, pixels

        # OpenCV leaves out frames of another size without an error.
        if size != self.size:
            pixels = cv2.resize(pixels, self.size, interpolation=cv2.INTER_AREA)

        # Repeat the previous frame until this one is due.
        due = round((seconds - self.start) * self.rate)
        repeats = max(0, min(due - self.count, MAX_STILL_FRAMES))
        for _ in range(repeats):
            self.writer.write(self.last)
        self.writer.write(pixels)
        self.count += repeats + 1
        self.last = pixels

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.release()


def check_max_frames(max_frames: Any) -> None:
    """Check the limit on the number of frames.

    Raises:
        FkpError: it is neither None nor an integer from 1.
    """
    if max_frames is not None and (not isinstance(max_frames, int) or max_frames < 1):
        raise FkpError(f"frames={max_frames}: must be a whole number from 1, or null for all")


def _default_name(video: Video) -> Path:
    if isinstance(video.source, int):
        return Path(f"camera{video.source}")
    return result_name(video.source)


def _open_writer(file: Path, rate: float, size: tuple[int, ...]) -> cv2.VideoWriter:
    # In bytes: OpenCV aborts the process on a name that is not valid UTF-8.
    name: Any = os.fsencode(file)
    writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    if not writer.isOpened():
        raise FkpError(
            f"{file}: this OpenCV cannot write videos; drawn=null writes the table alone"
        )
    return writer
