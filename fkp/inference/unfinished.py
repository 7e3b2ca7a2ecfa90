"""Find the folder of a prediction that was stopped, to continue it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fkp.errors import FkpError
from fkp.files.reading import read_text
from fkp.inference.result_files import MAX_JSON_BYTES, as_plain

if TYPE_CHECKING:
    from filelock import FileLock

# Holds the request, in a folder of results that are not complete yet.
UNFINISHED = "unfinished.json"


def find_unfinished(run_dir: Path, request: dict[str, Any]) -> Path:
    """Find the folder of a stopped prediction of the same request.

    Args:
        run_dir: folder of a new prediction; those beside it are searched, the newest first.
        request: as for `PredictionWriter`.

    Returns:
        The folder; `run_dir` if there is none.
    """
    from filelock import Timeout

    notes = sorted(
        run_dir.parent.glob(f"*/{UNFINISHED}"), key=lambda note: note.stat().st_mtime, reverse=True
    )
    for note in notes:
        try:
            # A prediction that is still running holds the lock.
            with lock(note):
                if json.loads(read_text(note, MAX_JSON_BYTES)) == as_plain(request):
                    return note.parent
        except (Timeout, OSError, FkpError, ValueError, RecursionError):
            continue
    return run_dir


def lock(note: Path) -> FileLock:
    """Return the lock that a running prediction holds on its folder; others fail at once."""
    from filelock import FileLock  # here: single images do not wait for it

    return FileLock(note.with_name(f".{note.name}.lock"), timeout=0)
