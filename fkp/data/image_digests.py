"""Digest the bytes of image files, so that a cache is named by content; remember the digests."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from fkp.data.columns import BLOCK, Texts
from fkp.files.cache import cache_folder, fingerprint

AHEAD = 256  # results that may be ready before they are used: a set larger than memory passes
RECORD = [("stat", np.int64, 4), ("digest", np.uint8, 16)]  # of one image file
T = TypeVar("T")


def map_ahead(function: Callable[[int], T], indices: Sequence[int] | np.ndarray) -> Iterator[T]:
    """Map a function in threads, AHEAD indices at a time; yield the results in order.

    Threads help, because OpenCV releases the interpreter.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(indices), AHEAD):
            yield from pool.map(function, indices[start : start + AHEAD])


def digests(paths: Texts[Path]) -> bytes:
    """Return the digests of all files' bytes.

    Digests are remembered: a file of the same size, times and inode is not read again.
    """
    record, file = _stats(paths)
    changed = np.ones(len(paths), bool)

    # A file of the right size is such a record, whatever it holds: entries that differ are reread.
    if file.is_file() and file.stat().st_size == record.nbytes:
        last = np.fromfile(file, record.dtype)
        record["digest"], changed = last["digest"], (last["stat"] != record["stat"]).any(1)

    if changed.any():
        indices = np.flatnonzero(changed)
        results = map_ahead(lambda i: _digest(paths[i]), indices)
        for i, digest in zip(indices.tolist(), results, strict=True):
            record["digest"][i] = 0 if digest is None else digest
            if digest is None:
                record["stat"][i] = -1  # the next run reads it again

        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=file.parent, prefix=f".{file.name}-", delete=False
        ) as temporary:
            temporary.write(record.data)
        os.replace(temporary.name, file)
    return record["digest"].tobytes()


def _stats(paths: Texts[Path]) -> tuple[np.ndarray, Path]:
    """Return a record (F,) with each file's size, times and inode, and the file that stores it."""
    record, names = np.zeros(len(paths), RECORD), ""
    for start in range(0, len(paths), BLOCK):
        block = paths[start : start + BLOCK].tolist()
        names = fingerprint(names, "\0".join(str(path.resolve()) for path in block))
        for i, path in enumerate(block, start):
            try:
                stat = path.stat()
            except OSError:
                continue  # removed after the table was read: decoding reports it
            record["stat"][i] = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
    return record, cache_folder() / f"contents-{names}.bin"


def _digest(path: Path) -> np.ndarray | None:
    """Return the digest (16,) uint8 of a file's bytes; None if it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return None
    return np.frombuffer(digest.digest(), np.uint8)
