"""What a prediction leaves: drawn copies, JSON, `.pts`, a table, a film; and how it goes on after a stop."""

from __future__ import annotations

import csv
import json
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

from fkp import runs
from fkp.draw import draw
from fkp.errors import FkpError
from fkp.files import harmless, read_text, short
from fkp.markup import Markup
from fkp.media import Album, Film
from fkp.pictures import read_picture, write_picture
from fkp.predictor import Face, Predictor
from fkp.progress import track

UNFINISHED = "unfinished.json"  # what was asked for, in a folder where some of it is still to be done
Follower = Callable[[list[Face], float], list[Face]]
AHEAD = 2  # pictures that are read before they are needed
MOST = 1 << 28  # bytes of a JSON file: ten thousand faces are half as many


@dataclass
class Predictions:
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
        """One picture."""
        image = read_picture(path)
        faces = self.predictor(image)
        self._write(path, Path(path.stem), image, faces)
        return faces

    def album(self, album: Album) -> dict[str, Any]:
        """Several pictures: what is there already is not done again; what cannot be read is told at the end.

        Returns:
            pictures, faces, without_face, failed (name -> reason), seconds.
        """
        names, began = album.names(), time.monotonic()
        both = list(zip(album.paths, names, strict=True))
        todo = [(path, name) for path, name in both if self._found(path, name) is None]
        failed: dict[str, str] = {}
        held: deque[tuple[Path, Path, np.ndarray]] = deque()  # pictures whose faces are still being found

        def readable() -> Iterator[np.ndarray]:
            for (path, name), picture in zip(todo, _ahead([path for path, _ in todo]), strict=True):
                try:
                    image = picture.result()
                except FkpError as error:
                    failed[str(path)] = str(error).removeprefix(f"{path}: ")
                    continue
                held.append((path, name, image))
                yield image

        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / UNFINISHED
        with _lock(note):
            _whole(note, json.dumps(self.asked, indent=1))
            for faces in track(self.predictor.stream(readable()), f"{len(todo)} pictures", len(todo)):
                self._write(*held.popleft(), faces)
            seconds = time.monotonic() - began
            found = ((path, some) for path, name in both if (some := self._found(path, name)) is not None)
            counts = _table(self.folder / "faces.csv", found, self.predictor.markup)
            summary = {
                "pictures": len(names),
                "faces": sum(counts),
                "without_face": counts.count(0),
                "failed": failed,
                "seconds": round(seconds, 2),
                "pictures_per_second": round((len(todo) - len(failed)) / max(seconds, 1e-9), 2),
                "done_before": len(names) - len(todo),
            }
            _whole(self.folder / "summary.json", json.dumps(summary, indent=1) + "\n")
            note.unlink()
        return summary

    def film(self, film: Film, follow: Follower, most: int | None = None) -> dict[str, Any]:
        """A film: one drawn, and a table with a row a face and frame. Ctrl-C ends it where it is.

        Args:
            film: its frames.
            follow: numbers and smooths the faces of each frame, given its time in seconds; see `fkp.tracks.Tracker`.
            most: frames to look at; None for all.

        Returns:
            frames, faces, tracks, without_face, seconds.
        """
        name = Path(str(film.source)).stem if not film.live else f"camera{film.source}"
        self.folder.mkdir(parents=True, exist_ok=True)
        held: deque[np.ndarray] = deque()

        def frames() -> Iterator[np.ndarray]:
            for number, frame in enumerate(film):
                if number == most:
                    return
                held.append(frame)
                yield frame

        # A camera waits for nobody: each frame by itself.
        found = (self.predictor(frame) for frame in frames()) if film.live else self.predictor.stream(frames())
        counts: list[int] = []
        numbers: set[int | None] = set()
        began, writer = time.monotonic(), None
        with (self.folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["frame", "seconds", "track", *_header(self.predictor.markup)])
            try:
                for number, faces in enumerate(track(found, str(film), most or film.count)):
                    seconds = time.monotonic() - began if film.live else number / film.rate
                    followed, frame = follow(faces, seconds), held.popleft()
                    counts.append(len(followed))
                    numbers |= {face.track for face in followed}
                    table.writerows([number, round(seconds, 4), face.track, *_row(face)] for face in followed)
                    if self.drawn is not None:
                        writer = writer or _writer(self.folder / f"{name}.mp4", film.rate, frame)
                        writer.write(cv2.cvtColor(draw(frame, followed, self.predictor.markup), cv2.COLOR_RGB2BGR))
            except KeyboardInterrupt:
                runs.say(f"stopped after {len(counts)} frames")
            finally:
                if writer is not None:
                    writer.release()
        if not counts:
            raise FkpError(f"{film}: holds no frame that can be read")
        passed = time.monotonic() - began
        return {
            "frames": len(counts),
            "faces": sum(counts),
            "tracks": len(numbers),
            "without_face": counts.count(0),
            "seconds": round(passed, 2),
            "frames_per_second": round(len(counts) / passed, 2),
        }

    def _file(self, name: Path, ending: str) -> Path:
        # Not with_suffix: a name may hold a dot.
        return self.folder / name.parent / f"{short(name.name)}{ending}"

    def _found(self, path: Path, name: Path) -> list[Face] | None:
        """The faces of a picture that has been looked at; None if it is to be done, or done anew."""
        if not (file := self._file(name, ".json")).exists():
            return None
        try:
            record = json.loads(read_text(file, MOST))
            faces = [_face(face, self.predictor.markup) for face in record["faces"]]
            return faces if record["image"] == str(path) else None
        except (FkpError, ValueError, TypeError, LookupError, OverflowError, RecursionError):
            return None

    def _write(self, path: Path, name: Path, image: np.ndarray, faces: Sequence[Face]) -> None:
        """What was found in a picture; its JSON file last and at once, so that it stands for the whole."""
        self._file(name, ".json").parent.mkdir(parents=True, exist_ok=True)
        if self.drawn is not None:
            write_picture(self._file(name, f".{self.drawn}"), draw(image, faces, self.predictor.markup))
        for number, face in enumerate(faces if self.pts else (), 1):
            from fkp.sources.pts_folders import write_pts  # pandas: waited for by those alone who ask for it

            write_pts(self._file(name, ".pts" if len(faces) == 1 else f"_{number}.pts"), face.points)
        record = {"image": str(path), "ckpt": self.asked.get("ckpt"), "faces": [face.as_dict() for face in faces]}
        _whole(self._file(name, ".json"), json.dumps(record, indent=1) + "\n")


def going_on(run_dir: Path, asked: dict[str, Any]) -> Path:
    """The folder of a prediction that was asked the same and stopped before its end, beside `run_dir`; or `run_dir`."""
    notes = sorted(run_dir.parent.glob(f"*/{UNFINISHED}"), key=lambda note: note.stat().st_mtime, reverse=True)
    for note in notes:
        try:
            with _lock(note):  # not one that is still at work
                if json.loads(read_text(note, MOST)) == asked:
                    return note.parent
        except (Timeout, OSError, FkpError, ValueError, RecursionError):
            continue
    return run_dir


def _lock(note: Path) -> FileLock:
    return FileLock(note.with_name(f".{note.name}.lock"), timeout=0)


def _ahead(paths: Sequence[Path]) -> Iterator[Future[np.ndarray]]:
    """The pictures, each read while the ones before it are looked at."""
    with ThreadPoolExecutor(1) as reader:
        coming: deque[Future[np.ndarray]] = deque()
        for path in paths:
            coming.append(reader.submit(read_picture, path))
            if len(coming) > AHEAD:
                yield coming.popleft()
        yield from coming


def _whole(file: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all."""
    draft = file.with_name(f".{file.name}.part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, file)


def _face(said: dict[str, Any], markup: Markup) -> Face:
    """A face as a JSON file says it, which may be half written or somebody else's."""
    shapes = {"points": (len(markup.points), 2), "confidence": (len(markup.points),), "box": (4,)}
    arrays = {name: np.array(said[name], float) for name in shapes}
    if any(arrays[name].shape != shape for name, shape in shapes.items()):
        raise ValueError("not a face of this markup")
    return Face(arrays["points"], arrays["confidence"], arrays["box"], float(said["score"]))


def _table(file: Path, found: Iterable[tuple[Path, list[Face]]], markup: Markup) -> list[int]:
    """One row a face, under the columns that `data=csv` reads; returns the number of faces of each picture."""
    counts = []
    # Not every name on a disk is text.
    with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as out:
        table = csv.writer(out)
        table.writerow(["image", *_header(markup)])
        for path, faces in found:
            counts.append(len(faces))
            table.writerows([harmless(str(path)), *_row(face)] for face in faces)
    return counts


def _header(markup: Markup) -> list[str]:
    points = [f"{point}_{axis}" for point in markup.points for axis in "xy"]
    return ["box_left", "box_top", "box_right", "box_bottom", "score", "confidence", *points]


def _row(face: Face) -> list[float]:
    values = [*face.box, face.score, face.confidence.mean(), *face.points.flatten()]
    return [round(float(value), 3) for value in values]


def _writer(file: Path, rate: float, frame: np.ndarray) -> cv2.VideoWriter:
    name = os.fsencode(file)  # a name that is no text would end the process
    writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*"mp4v"), rate, frame.shape[1::-1])  # type: ignore[call-overload]
    if not writer.isOpened():
        raise FkpError(f"{file}: this OpenCV cannot write films; drawn=null writes the table alone")
    return writer
