"""Predict images and videos, and write the results, a table of all and a summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fkp import console
from fkp.detectors import describe
from fkp.errors import FkpError
from fkp.face import Face
from fkp.files.writing import write_whole
from fkp.inference.image_writer import ImageWriter, read_with_note, write_table
from fkp.inference.label_writer import NO_LABELS, LabelWriter
from fkp.inference.media import ImageCollection, result_name
from fkp.inference.missing_results import MissingResults, Named
from fkp.inference.parquet import writes_parquet
from fkp.inference.predictor import Predictor
from fkp.inference.result_files import ResultFolder, as_json
from fkp.inference.shards import Shard
from fkp.inference.unfinished import UNFINISHED, lock
from fkp.inference.video import Video
from fkp.inference.video_writer import Follower, VideoWriter, check_max_frames


class PredictionWriter:
    """Find the faces of images and videos, and write them.

    Args:
        predictor: finds the faces.
        folder: where to write them.
        request: what the user asked for, as plain values; a stopped prediction is recognised by it.
            Its `ckpt` is written into each JSON file.
        drawn: ending of the annotated images, `png` or `jpg`; None for no annotated images and
            videos.
        pts: also write `.pts` files, which count pixels from 1.
        labels: also write pre-labels of the images for labelling tools, in these formats of
            `LabelWriter`; videos have none.
        threads: that read, detect, predict and write; None for all cores, 1 for a plain loop.
        parquet: also write the table of a collection as `faces.parquet`; None if pyarrow is there.

    Raises:
        FkpError: `drawn` or `labels` is something else, or pyarrow is missing.
    """

    def __init__(
        self,
        predictor: Predictor,
        folder: Path,
        request: dict[str, Any],
        drawn: str | None = "png",
        pts: bool = False,
        labels: str | Sequence[str] | None = None,
        threads: int | None = None,
        parquet: bool | None = False,
    ):
        if drawn not in (None, "png", "jpg"):
            raise FkpError(f"drawn={drawn}: choose png, jpg or null")
        self.predictor, self.request, self.pts = predictor, request, pts
        self.parquet = writes_parquet(parquet)
        self.results = ResultFolder(folder)
        ckpt = request.get("ckpt")
        self.images = ImageWriter(
            self.results, predictor.markup, ckpt, drawn, pts, predictor.detector
        )
        self.videos = VideoWriter(predictor, self.results, ckpt, drawn is not None, threads)
        self.missing = MissingResults(predictor, self.images, self.videos, threads)
        self.labels = LabelWriter(labels, predictor.markup, ckpt)

    def write_image(self, path: Path) -> list[Face]:
        """Find and write the faces of one image."""
        image, note = read_with_note(path)
        if note:
            console.print_line(f"note        {path}: {note}")
        faces = self.predictor(image)
        self.images.write(path, result_name(path), image, faces, note)

        folder = ImageCollection([path], path.parent)
        self.labels.write_collection(self.images, folder, [(path, result_name(path))])
        return faces

    def write_video(
        self, video: Video, follow: Follower | None, max_frames: int | None = None
    ) -> dict[str, Any]:
        """Find and write the faces of one video, as `VideoWriter.write` says.

        Raises:
            FkpError: `labels` are wanted.
        """
        if self.labels.formats:
            raise FkpError(f"labels: {video.source}: {NO_LABELS}", key="labels")
        return self.videos.write(video, follow, max_frames)

    def write_collection(
        self,
        collection: ImageCollection,
        make_follower: Callable[[], Follower] | None = None,
        max_frames: int | None = None,
        shard: Shard | None = None,
    ) -> dict[str, Any]:
        """Find and write the faces of several images and videos.

        Results that exist are kept. What cannot be read is listed in the summary and stops nothing.

        Args:
            collection: the images and videos.
            make_follower: makes the `follow` of `write_video`, one for each video.
            max_frames: number of frames of each video to process; None for all.
            shard: predict only the images and videos of this shard; the last shard that is done
                writes the table and the summary of all.

        Returns:
            images, faces and without_face (all of images), videos, detector, failed and notes
            (path -> reason), seconds, images_per_second, done_before (images). Of a shard, also
            shards, and shards_missing if it is not the last one; `images` and so on are then its
            own, without faces.

        Raises:
            FkpError: `max_frames` is not a whole number from 1, or another process predicts the
                same shard.
            KeyboardInterrupt: Ctrl-C; the same request goes on later.
        """
        check_max_frames(max_frames)
        named = list(zip(collection.paths, collection.names(self.pts), strict=True))
        self.labels.check_images(
            collection.relative(path) for path in collection.paths if path not in collection.videos
        )
        folder = self.results.folder
        folder.mkdir(parents=True, exist_ok=True)
        if shard is not None:
            return self._write_shard(shard, collection, named, make_follower, max_frames)

        with lock(folder / UNFINISHED):
            write_whole(folder / UNFINISHED, as_json(self.request))
            start = time.monotonic()
            done = self.missing.write(named, collection.videos, make_follower, max_frames)
            summary = self._write_table(named, collection)
            summary |= done | {"seconds": round(time.monotonic() - start, 2)}
            write_whole(folder / "summary.json", as_json(summary))
            (folder / UNFINISHED).unlink()
        return summary

    def _write_shard(
        self,
        shard: Shard,
        collection: ImageCollection,
        named: Sequence[Named],
        make_follower: Callable[[], Follower] | None,
        max_frames: int | None,
    ) -> dict[str, Any]:
        """Find and write the faces of one shard; arguments and result as of `write_collection`."""
        folder, videos, paths = self.results.folder, collection.videos, shard.paths(collection)
        own = [(path, name) for path, name in named if path in paths]
        images = sum(path not in videos for path, _ in own)

        with shard.running(folder, self.request):
            before = self._count_results(own)
            done = self.missing.write(own, videos, make_follower, max_frames)
            found_by = describe(self.predictor.detector)
            summary = {"images": images, "videos": len(own) - images, "detector": found_by, **done}
            new = done["done_before"] + len(done["failed"]) < images
            shard.finish(folder, summary, changed=new or self._count_results(own) != before)

        def merge(summaries: list[dict[str, Any]]) -> dict[str, Any]:
            failed = {path: why for one in summaries for path, why in one["failed"].items()}
            seconds = [float(one["seconds"]) for one in summaries]
            before = sum(int(one["done_before"]) for one in summaries)
            table = self._write_table(named, collection)
            rate = (table["images"] - before - len(failed)) / max(*seconds, 1e-9)
            return table | {
                "failed": failed,
                "seconds": max(seconds),
                "images_per_second": round(rate, 2),
                "done_before": before,
            }

        merged = shard.merge(folder, merge)
        return merged or {**summary, "shards_missing": shard.missing(folder)}

    def _count_results(self, named: Sequence[Named]) -> int:
        return sum(self.results.file(name, "json").is_file() for _, name in named)

    def _write_table(self, named: Sequence[Named], collection: ImageCollection) -> dict[str, Any]:
        """Write the table and the labels of all images that have results, and count them."""
        images = [(path, name) for path, name in named if path not in collection.videos]
        videos = [(path, name) for path, name in named if path in collection.videos]
        notes = self._read_notes(videos) | self.labels.notes(videos)

        def found() -> Iterator[tuple[Path, list[Face]]]:
            for path, name in images:
                result = self.images.read(path, name)
                if result is None:
                    continue
                faces, remarks = result
                if remarks:
                    notes[str(path)] = "; ".join(remarks)
                yield path, faces

        file, markup = self.results.folder / "faces.csv", self.predictor.markup
        counts = write_table(file, found(), markup, self.parquet)
        self.labels.write_collection(self.images, collection, images)
        return {
            "images": len(images),
            "faces": sum(counts),
            "without_face": counts.count(0),
            "videos": len(videos),
            "detector": describe(self.predictor.detector),
            "notes": notes,
        }

    def _read_notes(self, videos: Sequence[Named]) -> dict[str, str]:
        """Return the notes of all videos that have some, by path."""
        notes = {str(path): self.results.read_record(name).get("notes") for path, name in videos}
        return {
            path: "; ".join(map(str, some))
            for path, some in notes.items()
            if isinstance(some, list) and some
        }
