"""Read files of unknown origin within limits, and keep names safe for other programs."""

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

# Bytes of a file name. File systems allow 255; the rest is room for endings.
NAME = 230
# Bytes that are decoded at a time when the encoding is detected.
CHUNK = 1 << 20
# Byte order marks. UTF-32 comes first, because its mark begins with UTF-16's.
MARKS = [
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]


def read_bytes(path: Path, most: int) -> bytes:
    """Read a regular file of at most `most` bytes.

    Pipes and devices, which may never end, are refused.

    Raises:
        FkpError: the file is missing, is not regular, or is too large.
    """
    file, size = _opened(path, most)
    with file:
        try:
            # No more than its size when it was opened, even if the file is growing.
            return file.read(size)
        except OSError as error:
            raise FkpError(f"{path}: {error.strerror or error}") from None


def read_start(path: Path, count: int, most: int) -> bytes:
    """Read the first `count` bytes of a regular file of at most `most` bytes.

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
    """Open a regular file of at most `most` bytes; return it and its size."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
            raise FkpError(f"{path}: {kind}, not a file")
        if found.st_size > most:
            raise FkpError(
                f"{path}: {found.st_size} bytes, more than the {most} that fkp reads of such a file"
            )
        return path.open("rb"), found.st_size
    except FileNotFoundError:
        raise FkpError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        # ValueError: the name contains a zero byte.
        raise FkpError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def read_text(path: Path, most: int) -> str:
    """Read a UTF-8 text of at most `most` bytes, with or without a byte order mark.

    Raises:
        FkpError: as `read_bytes`, or the file is not UTF-8.
    """
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FkpError(
            f"{path}: not text in UTF-8 ({error.reason} at byte {error.start})"
        ) from None


def text_in(data: bytes) -> str:
    """Decode bytes by their byte order mark, or as UTF-8; undecodable bytes become U+FFFD."""
    encoding = next((encoding for mark, encoding in MARKS if data.startswith(mark)), "utf-8")
    return data.decode(encoding, errors="replace")


@contextmanager
def open_text(path: Path, most: int) -> Iterator[TextIO]:
    """Open a text of at most `most` bytes as a stream; line ends are kept.

    The encoding is detected by `text_encoding`.

    Raises:
        FkpError: as `read_bytes`; or, while reading, text that is not in the detected encoding.
    """
    encoding = text_encoding(path, most)
    with _opened(path, most)[0] as file, io.TextIOWrapper(file, encoding, newline="") as text:
        try:
            yield text
        except UnicodeError as error:
            name = "UTF-8 or Windows-1252" if encoding == "cp1252" else encoding.upper()
            reason = getattr(error, "reason", error)
            raise FkpError(f"{path}: not text in {name} ({reason}); save it as UTF-8") from None


def text_encoding(path: Path, most: int) -> str:
    """Detect the encoding of a text.

    In this order: the byte order mark; zero bytes at every second place, for UTF-16 without a mark;
    UTF-8, if the whole file can be decoded; else Windows-1252.

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
    return "utf-8" if _is_utf8(path, most) else "cp1252"


def _is_utf8(path: Path, most: int) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with _opened(path, most)[0] as file:
        try:
            while chunk := file.read(CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
        except OSError as error:
            raise FkpError(f"{path}: {error.strerror or error}") from None
    return True


def inside(folder: Path, path: Path) -> bool:
    """Return whether a path lies in a folder after `..` and links are resolved.

    The folder itself may be a link.
    """
    try:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    except ValueError:
        # The name contains a zero byte.
        return False


def short(name: str) -> str:
    """Shorten a file name so that endings can be added.

    A name that is too long becomes its beginning and a fingerprint.

    >>> short("a.b"), len(short("a" * 255))
    ('a.b', 230)
    """
    data = os.fsencode(name)
    if len(data) <= NAME:
        return name
    return f"{data[: NAME - 17].decode(errors='ignore')}-{hashlib.sha256(data).hexdigest()[:16]}"


def safe_cell(name: str) -> str:
    """Write a path as a cell that no spreadsheet takes for a formula.

    Paths that begin like a formula get `./` in front, which names the same file.

    >>> safe_cell("=1+1.png"), safe_cell("a.png")
    ('./=1+1.png', 'a.png')
    """
    return f"./{name}" if name[:1] in tuple("=+-@") or name[:1].isspace() else name
