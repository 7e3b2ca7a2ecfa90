"""Share the images of one prediction between jobs; the last one to finish writes the table."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fkp.errors import FkpError
from fkp.files.reading import read_text
from fkp.files.writing import write_whole
from fkp.inference.media import ImageCollection, relative_name
from fkp.inference.result_files import MAX_JSON_BYTES, as_json, as_plain

if TYPE_CHECKING:
    from filelock import FileLock

# In the folder of results: what belongs to single shards. No result of an image in a folder that a
# user names lies there, as hidden folders are left out.
FOLDER = ".shards"
REQUEST = "request.json"
SUMMARY = "summary.json"


class Shard:
    """One of several jobs that predict one collection into one folder.

    An image belongs to a shard by a hash of its path relative to the collection, so that each job
    finds its images by itself, on any machine, also after images were added.

    Args:
        number: from 0.
        count: of all shards.

    Raises:
        FkpError: the number is not below the count, or one of them is not a whole number.
    """

    def __init__(self, number: int, count: int):
        if type(count) is not int or count < 1:
            raise FkpError(f"shards={count}: must be a whole number from 1", key="shards")
        if type(number) is not int or not 0 <= number < count:
            raise FkpError(
                f"shard={number}: must be a whole number from 0 to {count - 1}, as shards={count};"
                f" all of them: python predict.py -m shard=0..{count - 1} shards={count} …",
                key="shard",
            )
        self.number, self.count = number, count

    def paths(self, collection: ImageCollection) -> set[Path]:
        """Return the paths of a collection that belong to this shard."""
        return {path for path in collection.paths if self._has(path, collection.root)}

    def _has(self, path: Path, root: Path) -> bool:
        name = os.fsencode(relative_name(path, root).as_posix())
        digest = hashlib.blake2b(name, digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.number

    @contextmanager
    def running(self, folder: Path, request: dict[str, Any]) -> Iterator[None]:
        """Keep other jobs from predicting the same shard, or another request, into a folder.

        Raises:
            FkpError: one of them does, or did.
        """
        from filelock import Timeout

        own = folder / FOLDER
        own.mkdir(parents=True, exist_ok=True)
        with _lock(own / REQUEST):
            self._check_request(own / REQUEST, request)

        try:
            with _lock(self._file(folder), timeout=0):
                yield
        except Timeout:
            raise FkpError(
                f"{folder}: another process predicts shard {self.number}; wait for it, or end it",
                key="shard",
                file=folder,
            ) from None

    def _check_request(self, file: Path, request: dict[str, Any]) -> None:
        wanted = as_plain({**request, "shards": self.count})
        before = _read(file)
        if not before:
            write_whole(file, as_json(wanted))
            return

        names = [name for name in wanted if wanted[name] != before.get(name)]
        if names:
            raise FkpError(
                f"{file.parent.parent}: its shards were predicted with other values of"
                f" {', '.join(names)}; choose another run_dir",
                key=names[0],
                file=file,
            )

    def finish(self, folder: Path, summary: dict[str, Any], changed: bool) -> None:
        """Mark the shard as done.

        Args:
            folder: of the results.
            summary: of this job.
            changed: whether this job has added results: else a mark of the same failures stays,
                so that the results are not merged again.
        """
        file = self._file(folder)
        if changed or _read(file).get("failed") != as_plain(summary["failed"]):
            write_whole(file, as_json(summary))

    def merge(
        self, folder: Path, write: Callable[[list[dict[str, Any]]], dict[str, Any]]
    ) -> dict[str, Any] | None:
        """Write the results of all shards, if all are done and they are not written yet.

        Args:
            folder: of the results.
            write: writes them, and returns their summary; takes the summaries of the shards.

        Returns:
            the summary of all shards; None if a shard is not done.
        """
        with _lock(folder / FOLDER / SUMMARY):
            done = [_read(self._file(folder, number)) for number in range(self.count)]
            if not all(done):
                return None

            digest = hashlib.sha256(json.dumps(done).encode()).hexdigest()
            summary = _read(folder / SUMMARY)
            if summary.get("merged") != digest:
                summary = {**write(done), "shards": self.count, "merged": digest}
                write_whole(folder / SUMMARY, as_json(summary))
            return {name: value for name, value in summary.items() if name != "merged"}

    def missing(self, folder: Path) -> int:
        """Count the shards that are not done."""
        return sum(not self._file(folder, number).is_file() for number in range(self.count))

    def _file(self, folder: Path, number: int | None = None) -> Path:
        """Return the file that marks a shard as done."""
        return folder / FOLDER / f"{self.number if number is None else number}.json"


def _read(file: Path) -> dict[str, Any]:
    """Read a JSON file; empty if it is missing or damaged."""
    try:
        values = json.loads(read_text(file, MAX_JSON_BYTES))
    except (FkpError, OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _lock(file: Path, timeout: float = -1) -> FileLock:
    from filelock import FileLock  # here: single images do not wait for it

    return FileLock(file.with_name(f".{file.name}.lock"), timeout=timeout)
