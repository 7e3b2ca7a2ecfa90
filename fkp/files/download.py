"""Download a data set or a model: the whole of it appears at once, or nothing does."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from fkp.errors import FkpError
from fkp.files.transfer import CHUNK, LIMIT, TooLarge, discard, download
from fkp.files.writing import sync

# Unpacked over packed size: images reach 1, tables of numbers 5, zip bombs 1000.
RATIO = 100
# What zipfile raises for a damaged archive; UnicodeDecodeError for the name of a member.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,
    FileExistsError,
    UnicodeDecodeError,
)

log = logging.getLogger(__name__)


class _Unsound(Exception):
    """The archive must not be unpacked, and no further byte of it would change that."""


def fetch_archive(
    url: str,
    into: Path,
    *,
    folder: str,
    checksums: Mapping[str, str],
    timeout: float = 30.0,
    tries: int = 5,
) -> Path:
    """Download a zip archive and unpack one of its folders, unless that folder is complete already.

    The bytes received so far lie beside `into` in `<into>.zip.part`, and their description in
    `<into>.zip.part.json`. They survive a lost connection, a kill and a full disk: the next try,
    call or process continues from there if the server supports it. An unsound archive is deleted.
    If several processes call at once, one downloads and the others wait.

    Args:
        url: http(s) address of the archive.
        into: the folder to make, with its parents. If it exists and is neither empty nor complete,
            it is refused and left unchanged.
        folder: path of the wanted folder below the archive's single top folder, e.g. `data`.
        checksums: SHA-256 in hex of the files that prove that the set is complete, by path
            relative to `into`.
        timeout: seconds without a byte after which a connection counts as lost.
        tries: number of tries in a row that may bring no new byte.

    Returns:
        `into`, with all links resolved.

    Raises:
        FkpError: a problem with the server, the archive, the disk or an existing `into`.
        ValueError: `checksums` is empty, so that nothing would prove that the set is complete.
    """
    if not checksums:
        raise ValueError("checksums must name at least one file")

    # The final rename must not replace a link, nor cross file systems.
    into = Path(os.path.realpath(into))
    part, note = _partial_files(into, ".zip.part")
    by_hand = f"Or unpack {folder}/ of {url} as {into}, or set data.root=... to where you have it."

    with _readable_errors(into, part, by_hand):
        if not _fault(into, checksums) and not part.exists():
            return into
        if not url.lower().startswith(("http://", "https://")):
            raise FkpError(f"{url}: not an http:// or https:// address.")

        into.parent.mkdir(parents=True, exist_ok=True)
        with _locked(into.with_name(into.name + ".zip.lock")):
            if fault := _fault(into, checksums):
                _refuse_other_content(into, fault)
                log.info("downloading %s", url)
                try:
                    download(url, part, note, timeout, tries)
                    _unpack(part, into, folder, checksums)
                except (_Unsound, TooLarge) as flaw:
                    # While the lock is held: later the file could be another process's.
                    discard(part, note)
                    raise FkpError(
                        f"{url}: {flaw}. It was deleted: run again to download it anew."
                    ) from flaw
            discard(part, note)
    return into


def fetch_file(
    url: str, file: Path, *, sha256: str, by_hand: str, timeout: float = 30.0, tries: int = 5
) -> Path:
    """Download one file, unless it is there already; interrupted downloads continue.

    Args:
        url: http(s) address.
        file: the file to make, with its parents; one with other content is replaced.
        sha256: SHA-256 of the file in hex.
        by_hand: a sentence that says what to do without a download; ends error messages.
        timeout: seconds without a byte after which a connection counts as lost.
        tries: number of tries in a row that may bring no new byte.

    Returns:
        `file`.

    Raises:
        FkpError: a problem with the server or the disk, or the file has another checksum.
    """
    part, note = _partial_files(file, ".part")
    checksums = {file.name: sha256}

    with _readable_errors(file, part, by_hand):
        if not _fault(file.parent, checksums):
            return file

        file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file.with_name(file.name + ".lock")):
            if _fault(file.parent, checksums):
                log.info("downloading %s", url)
                try:
                    download(url, part, note, timeout, tries)
                    fault = _fault(file.parent, {part.name: sha256})
                except TooLarge as flaw:
                    fault = str(flaw)
                if fault:
                    discard(part, note)
                    raise FkpError(f"{url}: not the file expected: {fault}. It was deleted.")
                sync(part)
                part.replace(file)
            discard(part, note)
    return file


def _partial_files(target: Path, ending: str) -> tuple[Path, Path]:
    """Return the paths of the bytes received so far and of the note that describes them."""
    return target.with_name(target.name + ending), target.with_name(target.name + ending + ".json")


@contextmanager
def _readable_errors(target: Path, part: Path, by_hand: str) -> Iterator[None]:
    """Turn errors of the disk into messages, and end all messages with the way by hand."""
    try:
        yield
    except FkpError as fault:
        raise FkpError(f"{fault}\n{by_hand}") from fault
    except OSError as fault:
        what = f"{fault.filename or target}: {fault.strerror or fault}."
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            what = (
                f"No room left on the disk of {target.parent}. "
                f"Make room and run again: it continues from {part}."
            )
        raise FkpError(f"{what}\n{by_hand}") from fault


def _fault(root: Path, checksums: Mapping[str, str]) -> str | None:
    """Say why a folder is not the complete set; None if it is."""
    for name, expected in checksums.items():
        if not (root / name).is_file():
            return f"{name} is missing"
        with (root / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected.lower():
            return f"{name} has SHA-256 {found}, not {expected.lower()}"
    return None


def _refuse_other_content(into: Path, fault: str) -> None:
    """Raise an FkpError if a folder holds anything."""
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise FkpError(f"{into} is in the way and not this data set: {fault}. Move it away.")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file; the system frees it when its process dies, so no lock is ever stale."""
    lock = FileLock(path)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log.info("another process is downloading this; waiting for it to release %s", path)
            lock.acquire()
    except PermissionError:
        # The lock of another user is a lock, too.
        raise
    except (OSError, NotImplementedError):
        # Some cluster file systems have no locks: the checksums and the final rename protect
        # the set nevertheless.
        pass
    try:
        yield
    finally:
        # Deleted while it is held: later it could be another process's. Windows deletes no open
        # file: there it stays, empty.
        with suppress(OSError):
            path.unlink()
        lock.release()


def _members(archive: zipfile.ZipFile, folder: str) -> dict[str, zipfile.ZipInfo]:
    """Map relative path -> member for the files below `*/folder/`.

    Raises:
        _Unsound: a member is dangerous or comes twice, or there is none.
    """
    wanted = [name for name in folder.split("/") if name]
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        names = info.filename.replace("\\", "/").removesuffix("/").split("/")
        if {"", ".", ".."} & set(names) or ":" in names[0]:
            raise _Unsound(
                f"the archive's member {info.filename!r} would leave the folder it is unpacked to"
            )

        below = names[1 + len(wanted) :]
        if info.is_dir() or not below or names[1 : 1 + len(wanted)] != wanted:
            continue
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG) or ":" in info.filename:
            raise _Unsound(f"the archive's member {info.filename!r} is a link, a device or a drive")
        if members.setdefault("/".join(below), info) is not info:
            raise _Unsound(f"the archive holds {info.filename!r} twice")
    if not members:
        raise _Unsound(f"the archive holds no file below */{folder}/")
    return members


def _unpack(part: Path, into: Path, folder: str, checksums: Mapping[str, str]) -> None:
    """Unpack into a folder beside `into`, check it, and rename it once it is on the disk.

    Raises:
        _Unsound: the archive is damaged, dangerous or not the one expected.
        OSError: a problem with the disk.
    """
    # Folders left by killed processes: while the lock is held, no other process is unpacking.
    prefix = f".{into.name}.unpacking-"
    for left in into.parent.iterdir():
        if left.name.startswith(prefix):
            shutil.rmtree(left, ignore_errors=True)

    # A unique name, for file systems without locks.
    scratch = into.with_name(prefix + secrets.token_hex(4))
    try:
        _extract(part, scratch, folder)
        if fault := _fault(scratch, checksums):
            raise _Unsound(f"the archive is not the one expected: {fault}")
        _move_into_place(scratch, into, checksums)
    except DAMAGED as error:
        raise _Unsound(
            f"the archive is damaged, truncated or no plain zip file ({error})"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _extract(part: Path, scratch: Path, folder: str) -> None:
    """Extract the files below `*/folder/` to `scratch`."""
    with zipfile.ZipFile(part) as archive:
        members = _members(archive, folder)

        # zipfile extracts no byte more than the size that a member declares.
        size = sum(info.file_size for info in members.values())
        if size > min(LIMIT, RATIO * part.stat().st_size):
            raise _Unsound(f"the archive would unpack to {size >> 20} MiB, as a zip bomb does")

        for name, info in members.items():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as packed, (scratch / name).open("xb") as file:
                # To the end, where zipfile compares the CRC.
                shutil.copyfileobj(packed, file, CHUNK)


def _move_into_place(scratch: Path, into: Path, checksums: Mapping[str, str]) -> None:
    """Bring a complete folder to the disk and rename it to `into`."""
    # Not while writing: by now the system has written most of it.
    for path in [*scratch.rglob("*"), scratch]:
        sync(path)

    # Windows does not replace a folder, not even an empty one.
    with suppress(OSError):
        into.rmdir()
    try:
        scratch.rename(into)
    except OSError:
        # Without locks another process may have been first: its folder is as good.
        if _fault(into, checksums):
            raise
    sync(into.parent)
