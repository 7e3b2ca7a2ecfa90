"""Write files that are either complete or absent."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file atomically: a killed process or a full disk leaves the previous file.

    Args:
        path: replaced if it exists; its folder must exist.
        data: text is written as UTF-8.

    Raises:
        OSError: the file cannot be written; the temporary file is removed.
    """
    draft = path.with_name(f".{path.name}.part")
    try:
        with draft.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise

    # The new name is on the disk only once its folder is.
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
