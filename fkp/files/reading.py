"""Files that others made are hostile until read; tables that others will open are harmless."""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from fkp.errors import FkpError

NAME = 230  # bytes of a file name, which leave room for endings: file systems take 255
CHUNK = 1 << 20  # bytes that are decoded at once, to see whether they can be
# Byte order marks; UTF-32's begins with UTF-16's.
MARKS = [
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
]
MARKS += [(codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")]


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


def read_start(path: Path, count: int, most: int) -> bytes:
    """The first bytes of a regular file of no more than `most` bytes.

    Raises:
        FkpError: as `read_bytes`.
    """
    file, _ = _opened(path, most)
    with file:
        try:
            return file.read(count)
        except OSError as error:
            raise FkpError(f"{path}: {error.strerror or error}") from None


def _opened(path: Path, most: int) -> tuple[BinaryIO, int]:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise FkpError(
                f"{path}: {'a folder' if stat.S_ISDIR(found.st_mode) else 'a pipe or a device'}, not a file"
            )
        if found.st_size > most:
            raise FkpError(
                f"{path}: {found.st_size} bytes, more than the {most} that fkp reads of such a file"
            )
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
        raise FkpError(
            f"{path}: not text in UTF-8 ({error.reason} at byte {error.start})"
        ) from None


def text_in(data: bytes) -> str:
    """Bytes as text: UTF-8, or what their byte order mark says; U+FFFD for what cannot be decoded."""
    encoding = next((encoding for mark, encoding in MARKS if data.startswith(mark)), "utf-8")
    return data.decode(encoding, errors="replace")


@contextmanager
def open_text(path: Path, most: int) -> Iterator[TextIO]:
    """Open a text for reading bit by bit, in whichever encoding `text_encoding` finds; line ends are kept.

    Raises:
        FkpError: as `read_bytes`; what is wrong with the encoding, when it is come to.
    """
    encoding = text_encoding(path, most)
    with _opened(path, most)[0] as file, io.TextIOWrapper(file, encoding, newline="") as text:
        try:
            yield text
        except UnicodeError as error:
            name = "UTF-8 or Windows-1252" if encoding == "cp1252" else encoding.upper()
            told = f"not text in {name} ({getattr(error, 'reason', error)}); save it as UTF-8"
            raise FkpError(f"{path}: {told}") from None


def text_encoding(path: Path, most: int) -> str:
    """Tell the encoding of a text: by its byte order mark, as UTF-16 without one by its zero bytes, as UTF-8 if all of
    it can be decoded so, else Windows-1252.

    Raises:
        FkpError: as `read_bytes`.
    """
    start = read_start(path, 4, most)
    for mark, encoding in MARKS:
        if start.startswith(mark):
            return encoding
    zeros = [byte == 0 for byte in start]
    if zeros in ([False, True] * 2, [True, False] * 2):
        return "utf-16-le" if zeros[1] else "utf-16-be"

    with _opened(path, most)[0] as file:
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while chunk := file.read(CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
        except OSError as error:
            raise FkpError(f"{path}: {error.strerror or error}") from None
    return "utf-8"


def inside(folder: Path, path: Path) -> bool:
    """Whether a path ends in a folder, whatever `..` and links it goes through. The folder may be a link itself."""
    try:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    except ValueError:  # a zero byte
        return False


def short(name: str) -> str:
    """A file name to which endings can be added: the name; or, if it is too long, its beginning and a fingerprint.

    >>> short("a.b"), len(short("a" * 255))
    ('a.b', 230)
    """
    data = os.fsencode(name)
    if len(data) <= NAME:
        return name
    return f"{data[: NAME - 17].decode(errors='ignore')}-{hashlib.sha256(data).hexdigest()[:16]}"


def safe_cell(name: str) -> str:
    """A path as a cell of a table: where a spreadsheet would take it for a formula it begins with `./`, the same path.

    >>> safe_cell("=1+1.png"), safe_cell("a.png")
    ('./=1+1.png', 'a.png')
    """
    return f"./{name}" if name[:1] in tuple("=+-@") or name[:1].isspace() else name
