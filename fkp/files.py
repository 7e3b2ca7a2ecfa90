"""Files that others made are hostile until read; tables that others will open are harmless."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from fkp.errors import FkpError


def read_bytes(path: Path, most: int) -> bytes:
    """What is in a regular file, if that is no more than `most` bytes: a pipe or a device never ends.

    Raises:
        FkpError: no such file, none that is regular, or a larger one.
    """
    file, size = _opened(path, most)
    with file:
        try:
            return file.read(size)  # no more, should it be growing
        except OSError as error:
            raise FkpError(f"{path}: {error.strerror or error}") from None


def _opened(path: Path, most: int) -> tuple[BinaryIO, int]:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise FkpError(f"{path}: {'a folder' if stat.S_ISDIR(found.st_mode) else 'a pipe or a device'}, not a file")
        if found.st_size > most:
            raise FkpError(f"{path}: {found.st_size} bytes, more than the {most} that fkp reads of such a file")
        return path.open("rb"), found.st_size
    except FileNotFoundError:
        raise FkpError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise FkpError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def read_text(path: Path, most: int) -> str:
    """As `read_bytes`, of text in UTF-8, with or without a byte order mark.

    Raises:
        FkpError: it is in no such encoding, too.
    """
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FkpError(f"{path}: not text in UTF-8 ({error.reason} at byte {error.start})") from None


@contextmanager
def open_text(path: Path, most: int) -> Iterator[TextIO]:
    """As `read_text`, bit by bit; line ends are kept.

    Raises:
        FkpError: as it does; what is wrong with the encoding, when it is come to.
    """
    with _opened(path, most)[0] as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        try:
            yield text
        except UnicodeDecodeError as error:
            raise FkpError(f"{path}: not text in UTF-8 ({error.reason})") from None


def inside(folder: Path, path: Path) -> bool:
    """Whether a path ends in a folder, whatever `..` and links it goes through. The folder may be a link itself."""
    try:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    except ValueError:  # a zero byte
        return False


def harmless(name: str) -> str:
    """A path as a cell of a table: where a spreadsheet would take it for a formula it begins with `./`, the same path.

    >>> harmless("=1+1.png"), harmless("a.png")
    ('./=1+1.png', 'a.png')
    """
    return f"./{name}" if name[:1] in tuple("=+-@") or name[:1].isspace() else name
