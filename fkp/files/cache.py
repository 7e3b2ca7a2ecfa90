"""Where fkp keeps what it can make again, and how such things are named by what they were made from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np


def cache_folder() -> Path:
    """Where fkp keeps what it can make again: FKP_CACHE, or `fkp` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FKP_CACHE") or Path(home) / "fkp")


def fingerprint(*parts: bytes | str | np.ndarray) -> str:
    """16 hex digits that change whenever any part does."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):  # as it lies there: no copy
            data = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
        else:
            data = memoryview(
                part.encode(errors="surrogatepass") if isinstance(part, str) else part
            )
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()[:16]
