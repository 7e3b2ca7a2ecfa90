"""What a prediction leaves: drawn copies, JSON, `.pts`, a table, a film; and how it goes on after a stop."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock, Timeout

from fkp import console
from fkp.console import track
from fkp.draw import draw
from fkp.errors import FkpError
from fkp.face import Face
from fkp.files.images import count_frames, read_image, write_image
from fkp.files.reading import read_text, safe_cell, short
from fkp.inference.media import ImageCollection, result_name
from fkp.inference.predictor import Predictor
from fkp.inference.video import Video
from fkp.markup import Markup

UNFINISHED = (
    "unfinished.json"  # what was asked for, in a folder where some of it is still to be done
)
Follower = Callable[[list[Face], float], list[Face]]
AHEAD = 2  # pictures that are read before they are needed
MOST = 1 << 28  # bytes of a JSON file: ten thousand faces are half as many
STILL = 1000  # frames at most that stand for one in a drawn video, however long it is shown


@dataclass
class PredictionWriter:
    """Writes what a predictor finds.

    Args:
        predictor: what finds the faces.
        folder: where to.
        asked: what the user asked for, plain values: the heading of each JSON file, and what a stopped prediction is
            known by.
        drawn: ending of the drawn copies, `png` or `jpg`; None for none.
        pts: write `.pts` files, too, which count from 1.

    Raises:
        FkpError: `drawn` is something else.
    """

    predictor: Predictor
    folder: Path
    asked: dict[str, Any]
    drawn: str | None = "png"
    pts: bool = False

    def __post_init__(self) -> None:
        if self.drawn not in (None, "png", "jpg"):
            raise FkpError(f"drawn={self.drawn}: there is png, jpg and null")

    def picture(self, path: Path) -> list[Face]:
        """One image."""
        image, note = _read(path)
        if note:
            console.print_line(f"note        {path}: {note}")
        faces = self.predictor(image)
        self._write(path, result_name(path), image, faces, note)
        return faces

    def album(
        self,
        album: ImageCollection,
        follow: Callable[[], Follower] | None = None,
        most: int | None = None,
    ) -> dict[str, Any]:
        """Several images and videos: what is there already is not done again; what cannot be read is told at the end.

        Args:
            album: the images and videos.
            follow: makes what follows the faces of one video, as `film` takes it.
            most: frames of each video to look at; None for all.

        Returns:
            pictures, faces and without_face of the images; videos; failed and notes (name -> reason); seconds.
        """
        _check_most(most)
        both, began = list(zip(album.paths, album.names(self.pts), strict=True)), time.monotonic()
        pictures = [(path, name) for path, name in both if path not in album.videos]
        todo = [(path, name) for path, name in pictures if self._found(path, name) is None]
        failed: dict[str, str] = {}

        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / UNFINISHED
        with _lock(unfinished):
            _whole(unfinished, _json(self.asked))
            self._pictures(todo, failed)
            seconds, done = time.monotonic() - began, len(todo) - len(failed)
            films = [(path, name) for path, name in both if path in album.videos]
            for path, name in films:
                self._one_of_films(path, name, follow() if follow else None, most, failed)

            found = (
                (path, some)
                for path, name in pictures
                if (some := self._found(path, name)) is not None
            )
            counts = _table(self.folder / "faces.csv", found, self.predictor.markup)
            summary = {
                "pictures": len(pictures),
                "faces": sum(counts),
                "without_face": counts.count(0),
                "videos": len(films),
                "failed": failed,
                "notes": self._notes(both),
                "seconds": round(time.monotonic() - began, 2),
                "pictures_per_second": round(done / max(seconds, 1e-9), 2),
                "done_before": len(pictures) - len(todo),
            }
            _whole(self.folder / "summary.json", _json(summary))
            unfinished.unlink()
        return summary

    def _pictures(self, todo: Sequence[tuple[Path, Path]], failed: dict[str, str]) -> None:
        held: deque[tuple[Path, Path, np.ndarray, str]] = (
            deque()
        )  # images whose faces are still being found

        def readable() -> Iterator[np.ndarray]:
            for (path, name), picture in zip(todo, _ahead([path for path, _ in todo]), strict=True):
                try:
                    image, note = picture.result()
                except FkpError as error:
                    failed[str(path)] = str(error).removeprefix(f"{path}: ")
                    continue
                held.append((path, name, image, note))
                yield image

        for faces in track(self.predictor.stream(readable()), f"{len(todo)} pictures", len(todo)):
            path, name, image, note = held.popleft()
            try:
                self._write(path, name, image, faces, note)
            except FkpError as error:
                failed[str(path)] = str(error).removeprefix(f"{path}: ")

    def _one_of_films(
        self,
        path: Path,
        name: Path,
        follow: Follower | None,
        most: int | None,
        failed: dict[str, str],
    ) -> None:
        record = self._record(name)
        if record.get("video") == _plain(str(path)) and not record.get("stopped", True):
            return
        try:
            stopped = self.film(Video(path), follow, most, name)["stopped"]
        except FkpError as error:
            failed[str(path)] = str(error).removeprefix(f"{path}: ")
        else:
            if stopped:
                raise KeyboardInterrupt

    def film(
        self,
        film: Video,
        follow: Follower | None,
        most: int | None = None,
        name: Path | None = None,
    ) -> dict[str, Any]:
        """A video: a drawn one, a table with a row a face and frame, and a summary. Ctrl-C ends it where it is.

        The drawn video has a constant rate and lasts as long as the original: where the rate of that one varies, frames
        are repeated.

        Args:
            film: its frames.
            follow: numbers and smooths the faces of each frame, given its time in seconds; see `fkp.inference.tracking.Tracker`.
            most: frames to look at; None for all.
            name: of its results, without an ending.

        Returns:
            frames, faces, tracks, without_face, stopped (by Ctrl-C), notes, seconds.
        """
        _check_most(most)
        name = name or (
            Path(f"camera{film.source}")
            if isinstance(film.source, int)
            else result_name(film.source)
        )
        self._check_spares(
            film.source, [self._file(name, ending) for ending in ("csv", "mp4", "json")]
        )
        began = time.monotonic()
        counts, tracks, last, stopped = self._follow(film, follow, most, name)
        if not counts:
            self._file(name, "csv").unlink()
            raise FkpError(f"{film}: holds no frame that can be read")
        passed = time.monotonic() - began
        summary = {
            "frames": len(counts),
            "faces": sum(counts),
            "tracks": tracks,
            "without_face": counts.count(0),
            "stopped": stopped,
            "notes": [] if stopped or len(counts) == most else film.notes(len(counts), last),
            "seconds": round(passed, 2),
            "frames_per_second": round(len(counts) / passed, 2),
        }
        _whole(
            self._file(name, "json"),
            _json({"video": str(film), "ckpt": self.asked.get("ckpt")} | summary),
        )
        return summary

    def _follow(
        self, film: Video, follow: Follower | None, most: int | None, name: Path
    ) -> tuple[list[int], int, float, bool]:
        """Write the table and the drawn video: faces of each frame, tracks, the last time, and whether Ctrl-C came."""
        file = self._file(name, "csv")
        file.parent.mkdir(parents=True, exist_ok=True)
        copy = (
            None if self.drawn is None else _Copy(self._file(name, "mp4"), film.constant_rate(most))
        )
        counts: list[int] = []
        numbers: set[int | None] = set()
        seconds, stopped = 0.0, False

        with file.open("w", encoding="utf-8", newline="") as out:
            table = csv.writer(out)
            table.writerow(["frame", "seconds", "track", *_header(self.predictor.markup)])
            try:
                for number, (seconds, frame, faces) in enumerate(self._frames(film, most)):
                    followed = follow(faces, seconds) if follow else faces
                    counts.append(len(followed))
                    numbers |= {face.track for face in followed}
                    table.writerows(
                        [number, round(seconds, 4), face.track, *_row(face)] for face in followed
                    )
                    if copy is not None:
                        copy.write(draw(frame, followed, self.predictor.markup), seconds)
            except KeyboardInterrupt:
                stopped = True
                console.print_line(f"stopped after {len(counts)} frames")
            finally:
                if copy is not None:
                    copy.close()
        return counts, len(numbers - {None}), seconds, stopped

    def _frames(
        self, film: Video, most: int | None
    ) -> Iterator[tuple[float, np.ndarray, list[Face]]]:
        """The time of each frame, seconds, the frame and its faces."""
        held: deque[tuple[float, np.ndarray]] = deque()

        def frames() -> Iterator[np.ndarray]:
            for seconds, frame in itertools.islice(film.timed_frames(), most):
                held.append((seconds, frame))
                yield frame

        # A camera waits for nobody: each frame by itself.
        found = (
            (self.predictor(frame) for frame in frames())
            if film.live
            else self.predictor.stream(frames())
        )
        for faces in track(found, str(film), most or film.count):
            yield *held.popleft(), faces

    def _file(self, name: Path, ending: str) -> Path:
        # Not with_suffix: a name may hold a dot.
        return self.folder / name.parent / f"{short(name.name)}.{ending}"

    def _check_spares(self, source: Path | int, results: Sequence[Path]) -> None:
        """That no result would be written over what was asked about."""
        for result in results:
            if isinstance(source, Path) and result.exists() and result.samefile(source):
                raise FkpError(
                    f"{source}: a result of that name would overwrite it; choose another run_dir"
                )

    def _record(self, name: Path) -> dict[str, Any]:
        """What a JSON file of results says; empty if there is none, or none that can be read."""
        try:
            record = json.loads(read_text(self._file(name, "json"), MOST))
        except (FkpError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}

    def _found(self, path: Path, name: Path) -> list[Face] | None:
        """The faces of a picture that has been looked at; None if it is to be done, or done anew."""
        record = self._record(name)
        try:
            faces = [_face(face, self.predictor.markup) for face in record["faces"]]
            return faces if record["image"] == _plain(str(path)) else None
        except (ValueError, TypeError, LookupError, OverflowError):
            return None

    def _notes(self, both: Sequence[tuple[Path, Path]]) -> dict[str, str]:
        notes = {str(path): self._record(name).get("notes") for path, name in both}
        return {
            path: "; ".join(map(str, some))
            for path, some in notes.items()
            if isinstance(some, list) and some
        }

    def _write(
        self, path: Path, name: Path, image: np.ndarray, faces: Sequence[Face], note: str = ""
    ) -> None:
        """What was found in a picture; its JSON file last and at once, so that it stands for the whole."""
        self._check_spares(
            path, [self._file(name, ending) for ending in ("json", self.drawn or "json")]
        )
        self._file(name, "json").parent.mkdir(parents=True, exist_ok=True)
        if self.drawn is not None:
            write_image(self._file(name, self.drawn), draw(image, faces, self.predictor.markup))
        for number, face in enumerate(faces if self.pts else (), 1):
            from fkp.data.pts_folders import (
                write_pts,  # pandas: waited for by those alone who ask for it
            )

            write_pts(
                self._file(name if len(faces) == 1 else Path(f"{name}_{number}"), "pts"),
                face.points,
            )
        record = {
            "image": str(path),
            "ckpt": self.asked.get("ckpt"),
            "faces": [face.as_dict() for face in faces],
        }
        _whole(self._file(name, "json"), _json(record | ({"notes": [note]} if note else {})))


class _Copy:
    """A drawn video of a constant rate.

    Args:
        file: where to.
        rate: frames a second.
    """

    def __init__(self, file: Path, rate: float):
        self.file, self.rate, self.count = file, rate, 0
        self.writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray, seconds: float) -> None:
        """Show a frame, RGB (H, W, 3), from this time on, and the one before it until then."""
        pixels = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        if self.writer is None:
            self.writer, self.size = _writer(self.file, self.rate, pixels), pixels.shape[1::-1]
            self.start, self.last = seconds, pixels
        if (
            pixels.shape[1::-1] != self.size
        ):  # of which the writer would say nothing, and leave it out
            pixels = cv2.resize(pixels, self.size, interpolation=cv2.INTER_AREA)

        missing = round((seconds - self.start) * self.rate) - self.count
        for _ in range(min(missing, STILL)):
            self.writer.write(self.last)
        self.writer.write(pixels)
        self.count += max(0, min(missing, STILL)) + 1
        self.last = pixels

    def close(self) -> None:
        """End the file."""
        if self.writer is not None:
            self.writer.release()


def find_unfinished(run_dir: Path, asked: dict[str, Any]) -> Path:
    """The folder of a prediction that was asked the same and stopped before its end, beside `run_dir`; or `run_dir`."""
    notes = sorted(
        run_dir.parent.glob(f"*/{UNFINISHED}"), key=lambda note: note.stat().st_mtime, reverse=True
    )
    for note in notes:
        try:
            with _lock(note):  # not one that is still at work
                if json.loads(read_text(note, MOST)) == _plain(asked):
                    return note.parent
        except (Timeout, OSError, FkpError, ValueError, RecursionError):
            continue
    return run_dir


def _lock(note: Path) -> FileLock:
    return FileLock(note.with_name(f".{note.name}.lock"), timeout=0)


def _check_most(most: Any) -> None:
    if most is not None and (not isinstance(most, int) or most < 1):
        raise FkpError(f"frames={most}: there is a number from 1, and null for all")


def _read(path: Path) -> tuple[np.ndarray, str]:
    """An image, and what is to be known about it."""
    image, frames = read_image(path), count_frames(path)
    return image, f"first of {frames} frames" if frames > 1 else ""


def _ahead(paths: Sequence[Path]) -> Iterator[Future[tuple[np.ndarray, str]]]:
    """The pictures, each read while the ones before it are looked at."""
    with ThreadPoolExecutor(1) as reader:
        coming: deque[Future[tuple[np.ndarray, str]]] = deque()
        for path in paths:
            coming.append(reader.submit(_read, path))
            if len(coming) > AHEAD:
                yield coming.popleft()
        yield from coming


def _whole(file: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all."""
    draft = file.with_name(f".{file.name}.part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, file)


def _json(value: Any) -> str:
    return json.dumps(_plain(value), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """As strict JSON has it: null for a number that is not finite, `\\xNN` for a byte of a name that is not UTF-8."""
    if isinstance(value, dict):
        return {_plain(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):
        return os.fsencode(value).decode("utf-8", "backslashreplace")
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _face(said: dict[str, Any], markup: Markup) -> Face:
    """A face as a JSON file says it, which may be half written or somebody else's."""
    shapes = {"points": (len(markup.points), 2), "confidence": (len(markup.points),), "box": (4,)}
    arrays = {name: np.array(said[name], float) for name in shapes}
    if any(arrays[name].shape != shape for name, shape in shapes.items()):
        raise ValueError("not a face of this markup")
    return Face(
        arrays["points"], arrays["confidence"], arrays["box"], float(np.array(said["score"], float))
    )


def _table(file: Path, found: Iterable[tuple[Path, list[Face]]], markup: Markup) -> list[int]:
    """One row a face, under the columns that `data=csv` reads; returns the number of faces of each picture."""
    counts = []
    # Not every name on a disk is text.
    with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as out:
        table = csv.writer(out)
        table.writerow(["image", *_header(markup)])
        for path, faces in found:
            counts.append(len(faces))
            table.writerows([safe_cell(str(path)), *_row(face)] for face in faces)
    return counts


def _header(markup: Markup) -> list[str]:
    points = [f"{point}_{axis}" for point in markup.points for axis in "xy"]
    return ["box_left", "box_top", "box_right", "box_bottom", "score", "confidence", *points]


def _row(face: Face) -> list[float | str]:
    values = [*face.box, face.score, face.confidence.mean(), *face.points.flatten()]
    return [round(float(value), 3) if math.isfinite(value) else "" for value in values]


def _writer(file: Path, rate: float, frame: np.ndarray) -> cv2.VideoWriter:
    name = os.fsencode(file)  # a name that is no text would end the process
    writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*"mp4v"), rate, frame.shape[1::-1])  # type: ignore[call-overload]
    if not writer.isOpened():
        raise FkpError(f"{file}: this OpenCV cannot write films; drawn=null writes the table alone")
    return writer
