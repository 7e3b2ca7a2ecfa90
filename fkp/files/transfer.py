"""Transfer one file over HTTP; an interrupted transfer continues where it broke."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich import progress
from rich.console import Console

from fkp.errors import FkpError
from fkp.files.reading import read_text
from fkp.files.writing import write_whole

# Bytes read from the connection at a time.
CHUNK = 1 << 18
# Bytes of a file, at most: no set of face crops is larger.
LIMIT = 4 << 30
# Seconds before the second try; doubles with each try that brings no new byte.
BACKOFF_S, BACKOFF_MOST_S = 0.5, 30.0
# HTTP errors below 500 that another try may get past: timeout, too early, too many requests.
TEMPORARY = (408, 425, 429)


class TooLarge(Exception):
    """The file has more bytes than LIMIT."""


class _Lost(Exception):
    """The transfer failed in a way that another try may get past."""


@dataclass
class _Note:
    """What is known about the file of which `part` holds the first bytes.

    Args:
        url: where it comes from.
        etag: the server's name for this version of the file.
        modified: the server's date of this version.
        total: bytes of the whole file, if the server has said.
    """

    url: str | None = None
    etag: str | None = None
    modified: str | None = None
    total: int | None = None

    @classmethod
    def read(cls, file: Path) -> _Note:
        """Read a note; what is missing, damaged or of another type is left out."""
        known = cls()
        with suppress(FkpError, ValueError, AttributeError, RecursionError):
            for name, value in json.loads(read_text(file, CHUNK)).items():
                wanted = int if name == "total" else str
                printable = not isinstance(value, str) or value.isprintable()
                if name in asdict(known) and isinstance(value, wanted) and printable:
                    setattr(known, name, value)
        return known


def download(url: str, part: Path, note: Path, timeout: float, tries: int) -> None:
    """Complete `part`, over any number of connections that bring new bytes.

    Args:
        url: http(s) address.
        part: the file for the bytes received so far.
        note: the file that describes them.
        timeout: seconds without a byte after which a connection counts as lost.
        tries: number of tries in a row that may bring no new byte.

    Raises:
        FkpError: the server refuses, or `tries` connections in a row brought no new byte.
        TooLarge: the file exceeds LIMIT.
    """
    furthest, failures = _size(part), 0
    with _progress_bar(part.name) as show:
        while True:
            try:
                return _transfer(url, part, note, timeout, show)
            except _Lost as loss:
                have = _size(part)
                failures = 1 if have > furthest else failures + 1
                furthest = max(have, furthest)
                if failures >= tries:
                    hint = f": it continues from {part}" if have else ""
                    raise FkpError(
                        f"{url}: {loss}; tried {tries} times. Run again later{hint}."
                    ) from loss
            time.sleep(min(BACKOFF_S * 2 ** (failures - 1), BACKOFF_MOST_S))


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


@contextmanager
def _progress_bar(name: str) -> Iterator[Callable[..., None]]:
    """Show a progress bar in a terminal; yield the function that updates it."""
    console = Console(stderr=True)
    bars = progress.Progress(
        "{task.description}",
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bars:
        yield partial(bars.update, bars.add_task(name, total=None))


def _transfer(url: str, part: Path, note: Path, timeout: float, show: Callable[..., None]) -> None:
    """Request the missing bytes of `part` once and append them.

    Raises:
        _Lost: bytes are still missing, and another try may bring them.
        TooLarge: the file exceeds LIMIT.
        FkpError: the server refuses the request.
    """
    # What is on the disk counts only if it comes from the same address.
    known = _Note.read(note)
    have = _size(part) if known.url == url else 0
    if have and have == known.total:
        return

    response = _open(url, _request_headers(known, have), timeout, have, part, note)
    if response is None:
        return
    with response:
        have, total = _check_response(url, response, known, have, part, note)
        have = _receive(response, part, have, total, show)
    if total is not None and have < total:
        raise _Lost(f"the connection ended at byte {have} of {total}")


def _request_headers(known: _Note, have: int) -> dict[str, str]:
    """Return headers that request the bytes from `have` on, if the file has not changed."""
    headers = {"User-Agent": "fkp"}
    if not have:
        return headers
    headers["Range"] = f"bytes={have}-"

    # RFC 9110, 13.1.5: a weak ETag must not stand in If-Range.
    weak = not known.etag or known.etag.startswith("W/")
    if version := known.modified if weak else known.etag:
        headers["If-Range"] = version
    return headers


def _open(
    url: str, headers: dict[str, str], timeout: float, have: int, part: Path, note: Path
) -> Any:
    """Send the request.

    Returns:
        the response; None if there is no byte after `have`.

    Raises:
        _Lost: another try may succeed.
        FkpError: the server refuses, or cannot be trusted.
    """
    request = urllib.request.Request(url, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and have:
                # The range begins at the end of the file, whose size the server had not said; or
                # behind it, and the file has changed.
                if error.headers.get("Content-Range") == f"bytes */{have}":
                    return None
                discard(part, note)
            elif error.code not in TEMPORARY and error.code < 500:
                raise FkpError(
                    f"{url}: the server answered HTTP {error.code} {error.reason}."
                ) from error
            raise _Lost(f"the server answered HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise FkpError(
                f"{url}: the server's certificate is not trusted ({reason.verify_message})."
            ) from error
        raise _Lost(f"no connection ({reason})") from error


def _check_response(
    url: str, response: Any, known: _Note, have: int, part: Path, note: Path
) -> tuple[int, int | None]:
    """Check what the server is about to send, and prepare `part` for it.

    Returns:
        the number of bytes in `part` to which those of the response are appended, and the number
        of bytes of the whole file, None if the server has not said.

    Raises:
        _Lost: the server sends other bytes than requested.
        FkpError: the server sends no file.
    """
    # The rest of the file, as requested.
    if response.status == 206 and have:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        same = span and int(span[1]) == have and known.total in (None, int(span[2]))
        if not span or not same or known.etag != response.headers.get("ETag", known.etag):
            discard(part, note)
            raise _Lost("the server sent other bytes than requested, or its file has changed")
        return have, int(span[2])

    if response.status != 200:
        raise FkpError(f"{url}: the server answered HTTP {response.status}, not with a file.")

    # The whole file: nothing was there, the file has changed, or the server knows no ranges.
    # The note comes second, as it must never describe bytes of another file.
    part.write_bytes(b"")
    headers = response.headers
    new = _Note(url, headers.get("ETag"), headers.get("Last-Modified"), response.length)
    write_whole(note, json.dumps(asdict(new)))
    return 0, new.total


def _receive(
    response: Any, part: Path, have: int, total: int | None, show: Callable[..., None]
) -> int:
    """Append the bytes of a response to `part`, up to `total` bytes.

    Returns:
        the number of bytes that `part` has now.

    Raises:
        _Lost: the connection broke.
        TooLarge: the file exceeds LIMIT.
    """
    with part.open("ab") as file:
        while total is None or have < total:
            if max(have, total or 0) > LIMIT:
                raise TooLarge(f"the file has more than {LIMIT >> 20} MiB")
            try:
                chunk = response.read1(CHUNK if total is None else min(CHUNK, total - have))
            except (OSError, http.client.HTTPException) as error:
                raise _Lost(f"the connection broke at byte {have} ({error})") from error
            if not chunk:
                break

            # Flushed at once: a killed process loses nothing that it received.
            file.write(chunk)
            file.flush()
            have += len(chunk)
            show(completed=have, total=total)
    return have


def discard(part: Path, note: Path) -> None:
    """Delete the bytes received so far and their description."""
    with suppress(OSError):
        part.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
