"""Write files atomically: a reader finds the whole new file or the whole old one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fkp.files.reading import short


def write_whole(
    path: Path, data: str | bytes | memoryview, *, durable: bool = False, shared: bool = False
) -> None:
    """Write a file atomically.

    Args:
        path: the file; its folder must exist.
        data: the content; text is encoded as UTF-8, its line ends are kept.
        durable: as in `open_whole`.
        shared: as in `open_whole`.

    Raises:
        OSError: the file cannot be written; the old file, if there was one, is unchanged.
    """
    with open_whole(path, durable=durable, shared=shared) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def open_whole(path: Path, *, durable: bool = False, shared: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `path` when the block ends without an error.

    The bytes go to `.NAME.part` in the same folder, which is then renamed. A killed process leaves
    that file behind; the next write of `path` replaces it.

    Args:
        path: the file; its folder must exist.
        durable: wait until the content and the name are on the disk, so that the file survives a
            power failure, too.
        shared: give the temporary file a unique name, as several processes may write `path` at
            the same time. A killed process then leaves a file that nothing replaces.

    Raises:
        OSError: the file cannot be written; it names `path`, which is unchanged.
    """
    unique = f".{secrets.token_hex(4)}" if shared else ""
    draft = path.with_name(f".{short(path.name)}{unique}.part")
    try:
        with draft.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink()
        if isinstance(error, OSError) and error.filename == str(draft):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Systems that cannot do this for a folder are left to themselves.

    Raises:
        OSError: the file cannot be written to the disk.
    """
    is_folder = path.is_dir()
    with suppress(*[OSError] if is_folder else []):
        handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
