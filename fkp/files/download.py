"""Fetch a published data set or model: the whole of it appears at once, or nothing does."""

import errno
import hashlib
import http.client
import json
import logging
import os
import re
import secrets
import shutil
import ssl
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich import progress
from rich.console import Console

from fkp.errors import FkpError
from fkp.files.reading import read_text

CHUNK = 1 << 18  # bytes asked of the connection at a time
LIMIT = 4 << 30  # bytes, of the archive and of what it unpacks to: no set of face crops is larger
RATIO = 100  # unpacked over packed size: pictures reach 1, tables of numbers 5, zip bombs 1000
BACKOFF_S = 0.5  # before the second try; doubles with each that brings nothing new

log = logging.getLogger(__name__)


class _Lost(Exception):
    """The transfer failed in a way that another try may mend."""


class _Unsound(Exception):
    """The archive is not one to unpack, and no further byte of it would change that."""


def fetch_archive(
    url: str,
    into: Path,
    *,
    folder: str,
    checksums: Mapping[str, str],
    timeout: float = 30.0,
    tries: int = 5,
) -> Path:
    """Make ``into`` the folder ``folder`` of the zip archive at ``url``, downloading only what is missing.

    A complete ``into`` returns without a request; anything else in its place is refused and left alone.
    After a lost connection, a kill or a full disk the bytes so far stay beside it in ``<into>.zip.part`` (with
    what they are a part of in ``.json``), and the next try, call or process goes on from there if the server
    can. An unsound archive is deleted. Of processes that call at once, one fetches and the others wait.

    Args:
        url: http(s) address of the archive.
        into: the folder to make, with its parents.
        folder: path of the wanted folder below the archive's single top folder, e.g. ``"data"``.
        checksums: SHA-256 in hex of the files that tell a whole set, by path relative to ``into``.
        timeout: seconds without a byte after which a connection counts as lost.
        tries: how many in a row may bring no new byte.

    Returns:
        ``into``, with every link resolved.

    Raises:
        FkpError: the server, the archive, the disk or the present ``into`` stands in the way.
        ValueError: ``checksums`` is empty, so nothing would tell a whole set from half of one.
    """
    if not checksums:
        raise ValueError("checksums must name at least one file")
    into = Path(
        os.path.realpath(into)
    )  # the final rename must not replace a link, nor cross file systems
    part, note = (into.with_name(into.name + ending) for ending in (".zip.part", ".zip.part.json"))
    by_hand = f"Or unpack {folder}/ of {url} as {into}, or set data.root=... to where you have it."
    try:
        if not _fault(into, checksums) and not part.exists():
            return into
        if not url.lower().startswith(("http://", "https://")):
            raise FkpError(f"{url}: not an http:// or https:// address.")
        into.parent.mkdir(parents=True, exist_ok=True)
        with _locked(into.with_name(into.name + ".zip.lock")):
            if fault := _fault(into, checksums):
                if into.exists() and (not into.is_dir() or any(into.iterdir())):
                    raise FkpError(
                        f"{into} is in the way and not this data set: {fault}. Move it away."
                    )
                log.info("fetching %s", url)
                try:
                    _download(url, part, note, timeout, tries)
                    _unpack(part, into, folder, checksums)
                except _Unsound as flaw:
                    _discard(part, note)  # with the lock held: later it could be another's
                    raise FkpError(
                        f"{url}: {flaw}. It was deleted: run again to fetch it anew."
                    ) from flaw
            _discard(part, note)
    except FkpError as fault:
        raise FkpError(f"{fault}\n{by_hand}") from fault
    except OSError as fault:
        what = f"{fault.filename or into}: {fault.strerror or fault}."
        if fault.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
        ):  # what is in the .part saves a download: it stays
            what = f"No room left on the disk of {into.parent}. Make room and run again: it goes on from {part}."
        raise FkpError(f"{what}\n{by_hand}") from fault
    return into


def fetch_file(
    url: str, file: Path, *, sha256: str, by_hand: str, timeout: float = 30.0, tries: int = 5
) -> Path:
    """Make `file` the one at `url`: as `fetch_archive`, for one file.

    Args:
        url: http(s) address.
        file: where to, with its parents; returned as it is if it is there and right.
        sha256: in hex, what the file must have.
        by_hand: the way out for those who cannot download.
        timeout: seconds without a byte after which a connection counts as lost.
        tries: how many in a row may bring no new byte.

    Raises:
        FkpError: the server, the disk, or other bytes than expected.
    """
    part, note = (file.with_name(file.name + ending) for ending in (".part", ".part.json"))
    sums = {file.name: sha256}
    try:
        if not _fault(file.parent, sums):
            return file
        file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file.with_name(file.name + ".lock")):
            if _fault(file.parent, sums):
                log.info("fetching %s", url)
                _download(url, part, note, timeout, tries)
                if fault := _fault(file.parent, {part.name: sha256}):
                    _discard(part, note)
                    raise FkpError(f"{url}: not the file expected: {fault}. It was deleted.")
                _sync(part)
                part.replace(file)
            _discard(part, note)
    except FkpError as fault:
        raise FkpError(f"{fault}\n{by_hand}") from fault
    except OSError as fault:
        raise FkpError(
            f"{fault.filename or file}: {fault.strerror or fault}.\n{by_hand}"
        ) from fault
    return file


def _fault(root: Path, checksums: Mapping[str, str]) -> str | None:
    """Say what keeps ``root`` from being the whole set; None if nothing does."""
    for name, expected in checksums.items():
        if not (root / name).is_file():
            return f"{name} is missing"
        with (root / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected.lower():
            return f"{name} has SHA-256 {found}, not {expected.lower()}"
    return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file. The system frees it when its process dies, so none is ever stale."""
    lock = FileLock(path)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log.info("another process is fetching this set; waiting for it to let go of %s", path)
            lock.acquire()
    except PermissionError:
        raise  # another user's lock is one too
    except (OSError, NotImplementedError):
        pass  # some cluster file systems lock nothing: the checks and the one rename still guard the set
    try:
        yield
    finally:
        with suppress(OSError):  # Windows deletes no open file: there it stays, empty
            path.unlink()  # while held: later it could be another's
        lock.release()


def _discard(part: Path, note: Path) -> None:
    with suppress(OSError):
        part.unlink(missing_ok=True)
        note.unlink(missing_ok=True)


def _download(url: str, part: Path, note: Path, timeout: float, tries: int) -> None:
    """Complete ``part``, through as many lost connections as bring it further, and ``tries`` that do not."""
    console = Console(stderr=True)
    columns = progress.BarColumn(), progress.DownloadColumn(), progress.TransferSpeedColumn()
    have = furthest = part.stat().st_size if part.exists() else 0
    failures = 0
    with progress.Progress(
        "{task.description}",
        *columns,
        progress.TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bars:
        show = partial(bars.update, bars.add_task(part.name, total=None))
        while True:
            try:
                return _transfer(url, part, note, timeout, show)
            except _Lost as loss:
                have = part.stat().st_size if part.exists() else 0
                failures = 1 if have > furthest else failures + 1
                furthest = max(have, furthest)
                if failures >= tries:
                    what = f"{url}: {loss}; tried {tries} times. Run again later"
                    raise FkpError(
                        f"{what}: it goes on from {part}." if have else f"{what}."
                    ) from loss
            time.sleep(min(BACKOFF_S * 2 ** (failures - 1), 30.0))


def _transfer(url: str, part: Path, note: Path, timeout: float, show: Callable[..., None]) -> None:
    """Ask once for what ``part`` lacks and append the answer; raise _Lost if it still lacks something."""
    known: dict[str, Any] = {}
    with suppress(FkpError, ValueError, AttributeError, RecursionError):
        for name, said in json.loads(read_text(note, CHUNK)).items():
            if (
                isinstance(said, int)
                if name == "total"
                else isinstance(said, str) and said.isprintable()
            ):
                known[name] = said
    have = part.stat().st_size if part.exists() and known.get("url") == url else 0
    total, etag = known.get("total"), known.get("etag")
    if have and have == total:
        return
    headers = {"User-Agent": "fkp"}
    if have:
        headers["Range"] = f"bytes={have}-"
        # RFC 9110, 13.1.5: a weak ETag must not stand in If-Range
        if unchanged := known.get("modified") if not etag or etag.startswith("W/") else etag:
            headers["If-Range"] = unchanged
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=timeout
        )
    except urllib.error.HTTPError as error:
        with error:
            if (
                error.code == 416
                and have
                and error.headers.get("Content-Range") == f"bytes */{have}"
            ):
                return  # all was there, of a size the server had not told
            if error.code == 416 and have:
                _discard(part, note)
            elif error.code not in (408, 425, 429) and error.code < 500:
                raise FkpError(
                    f"{url}: the server answered HTTP {error.code} {error.reason}."
                ) from error
            raise _Lost(f"the server answered HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise FkpError(f"{url}: no trust in the server ({reason.verify_message}).") from error
        raise _Lost(f"no connection ({reason})") from error
    with response:
        if response.status == 206 and have:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            same = span and int(span[1]) == have and total in (None, int(span[2]))
            if not span or not same or etag != response.headers.get("ETag", etag):
                _discard(part, note)
                raise _Lost("the server sent other bytes than asked for, or its file has changed")
            total = int(span[2])
        elif (
            response.status == 200
        ):  # the whole file: we had nothing, it has changed, or there is no Range
            have, total, etag = 0, response.length, response.headers.get("ETag")
            part.write_bytes(
                b""
            )  # before the note, which must never describe bytes of another file
            known = {
                "url": url,
                "etag": etag,
                "modified": response.headers.get("Last-Modified"),
                "total": total,
            }
            note.write_text(json.dumps(known), encoding="utf-8")
        else:
            raise FkpError(f"{url}: the server answered HTTP {response.status}, not with a file.")
        with part.open("ab") as file:
            while total is None or have < total:
                if max(have, total or 0) > LIMIT:
                    raise _Unsound(f"the archive has more than {LIMIT >> 20} MiB")
                try:
                    chunk = response.read1(CHUNK if total is None else min(CHUNK, total - have))
                except (OSError, http.client.HTTPException) as error:
                    raise _Lost(f"the connection broke at byte {have} ({error})") from error
                if not chunk:
                    break
                file.write(chunk)
                file.flush()  # a killed process loses nothing that it received
                have += len(chunk)
                show(completed=have, total=total)
    if total is not None and have < total:
        raise _Lost(f"the connection ended at byte {have} of {total}")


def _members(archive: zipfile.ZipFile, folder: str) -> dict[str, zipfile.ZipInfo]:
    """Map relative path -> member for the files below ``*/folder/``; raise _Unsound for a dangerous one."""
    wanted = [part for part in folder.split("/") if part]
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        parts = info.filename.replace("\\", "/").removesuffix("/").split("/")
        if {"", ".", ".."} & set(parts) or ":" in parts[0]:
            raise _Unsound(
                f"the archive's member {info.filename!r} would leave the folder it is unpacked to"
            )
        inside = parts[1 + len(wanted) :]
        if info.is_dir() or not inside or parts[1 : 1 + len(wanted)] != wanted:
            continue
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG) or ":" in info.filename:
            raise _Unsound(f"the archive's member {info.filename!r} is a link, a device or a drive")
        if members.setdefault("/".join(inside), info) is not info:
            raise _Unsound(f"the archive holds {info.filename!r} twice")
    if not members:
        raise _Unsound(f"the archive holds no file below */{folder}/")
    return members


def _unpack(part: Path, into: Path, folder: str, checksums: Mapping[str, str]) -> None:
    """Unpack into a folder beside ``into``, check it, and rename it once it is whole and on the disk."""
    prefix = f".{into.name}.unpacking-"
    for (
        left
    ) in into.parent.iterdir():  # by a killed process: with the lock held, nobody else is unpacking
        if left.name.startswith(prefix):
            shutil.rmtree(left, ignore_errors=True)
    scratch = into.with_name(prefix + secrets.token_hex(4))  # unique for those who cannot lock
    try:
        with zipfile.ZipFile(part) as archive:
            members = _members(archive, folder)
            size = sum(
                info.file_size for info in members.values()
            )  # zipfile gives no byte more than that
            if size > min(LIMIT, RATIO * part.stat().st_size):
                raise _Unsound(f"the archive would unpack to {size >> 20} MiB, as a zip bomb does")
            for name, info in members.items():
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as packed, (scratch / name).open("xb") as file:
                    shutil.copyfileobj(
                        packed, file, CHUNK
                    )  # to the end, where zipfile compares the CRC
        if fault := _fault(scratch, checksums):
            raise _Unsound(f"the archive is not the one expected: {fault}")
        for path in [*scratch.rglob("*"), scratch]:  # not while writing: most is on the disk by now
            _sync(path)
        with suppress(OSError):
            into.rmdir()  # an empty one, which Windows would not replace
        try:
            scratch.rename(into)
        except OSError:
            if _fault(into, checksums):
                raise  # else another process, which could not lock either, was first: its folder is as good
        _sync(into.parent)
    # UnicodeDecodeError: of a member's name
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
        FileExistsError,
        UnicodeDecodeError,
    ) as error:
        raise _Unsound(
            f"the archive is damaged, truncated or no plain zip file ({error})"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder where the system can, to the disk."""
    with suppress(*[OSError] if path.is_dir() else []):
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
