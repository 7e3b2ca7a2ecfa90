"""Locate the cache folder, and fingerprint the inputs that a cached file was made from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np


def cache_folder() -> Path:
    """Return the folder for files that fkp can make again.

    It is FKP_CACHE if that is set, else `fkp` in the user's cache folder.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FKP_CACHE") or Path(home) / "fkp")


def fingerprint(*parts: bytes | str | np.ndarray) -> str:
    """Compute 16 hex digits that change whenever any of the parts changes."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            # Views of the array's memory: contiguous arrays are not copied.
            data = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
        elif isinstance(part, str):
            data = memoryview(part.encode(errors="surrogatepass"))
        else:
            data = memoryview(part)

        # The length keeps ("ab", "c") and ("a", "bc") apart.
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()[:16]
