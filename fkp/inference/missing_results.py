"""Find and write the faces of those images and videos that have no results yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from fkp.console import track
from fkp.errors import FkpError
from fkp.inference.image_writer import ImageWriter, frames_note, reason
from fkp.inference.pipeline import Pipeline
from fkp.inference.predictor import Predictor
from fkp.inference.result_files import as_plain
from fkp.inference.stream import Answer, Stages
from fkp.inference.video import Video
from fkp.inference.video_writer import Follower, VideoWriter

# Path of an image or video, and name of its results.
Named = tuple[Path, Path]


class MissingResults:
    """Write the results that are missing, in a folder where some may be there.

    Args:
        predictor: finds the faces.
        images, videos: write them.
        threads: that read, detect, predict and write; None for all cores, 1 for a plain loop.
    """

    def __init__(
        self, predictor: Predictor, images: ImageWriter, videos: VideoWriter, threads: int | None
    ):
        self.predictor, self.images, self.videos = predictor, images, videos
        self.threads = threads

    def write(
        self,
        named: Sequence[Named],
        videos: Collection[Path],
        make_follower: Callable[[], Follower] | None,
        max_frames: int | None,
    ) -> dict[str, Any]:
        """Find and write the faces of images, then those of videos.

        Args:
            named: path of each, and name of its results.
            videos: those of the paths that are videos.
            make_follower, max_frames: as of `PredictionWriter.write_collection`.

        Returns:
            failed, seconds, images_per_second and done_before, as of
            `PredictionWriter.write_collection`.
        """
        start, failed = time.monotonic(), dict[str, str]()
        images = [(path, name) for path, name in named if path not in videos]
        todo = [(path, name) for path, name in images if self.images.read(path, name) is None]

        self._write_images(todo, failed)
        image_seconds, done = time.monotonic() - start, len(todo) - len(failed)

        for path, name in named:
            if path in videos:
                follow = make_follower() if make_follower else None
                self._write_video(path, name, follow, max_frames, failed)

        return {
            "failed": failed,
            "seconds": round(time.monotonic() - start, 2),
            "images_per_second": round(done / max(image_seconds, 1e-9), 2),
            "done_before": len(images) - len(todo),
        }

    def _write_images(self, todo: Sequence[Named], failed: dict[str, str]) -> None:
        """Find and write the faces of images; several are read, predicted and written at once."""

        def write(item: tuple[Named, Answer]) -> tuple[Path, Exception | None]:
            (path, name), answer = item
            if answer.image is None:
                return path, answer.error
            try:
                note = frames_note(answer.frames)
                self.images.write(path, name, answer.image, answer.faces, note)
            except FkpError as error:
                return path, error
            return path, None

        with Pipeline(self.threads) as pipeline:
            stages = Stages(self.predictor, keep=True)
            answers = stages.answers(pipeline, (path for path, _ in todo))
            written = pipeline.map(write, zip(todo, answers, strict=True), pixels=_pixels)

            for path, error in track(written, f"{len(todo)} images", len(todo)):
                if isinstance(error, FkpError):
                    failed[str(path)] = reason(error, path)
                elif error is not None:
                    raise error

    def _write_video(
        self,
        path: Path,
        name: Path,
        follow: Follower | None,
        max_frames: int | None,
        failed: dict[str, str],
    ) -> None:
        """Find and write the faces of a video, unless its results are complete.

        Raises:
            KeyboardInterrupt: Ctrl-C ended the video.
        """
        record = self.images.results.read_record(name)
        if record.get("video") == as_plain(str(path)) and not record.get("stopped", True):
            return
        try:
            stopped = self.videos.write(Video(path), follow, max_frames, name)["stopped"]
        except FkpError as error:
            failed[str(path)] = reason(error, path)
            return
        if stopped:
            raise KeyboardInterrupt


def _pixels(item: tuple[Named, Answer]) -> int:
    """Return the number of pixels of an answer's image."""
    image = item[1].image
    return 0 if image is None else image.shape[0] * image.shape[1]
