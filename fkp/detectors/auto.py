"""Auto: YuNet if its model is in the cache or can be fetched, else the Haar cascade."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fkp.detectors.haar import HaarCascade
from fkp.detectors.yunet import YuNet, cached, download, is_cached, is_offline
from fkp.errors import FkpError

# Seconds without a byte after which the server counts as unreachable; it is asked once a process.
TIMEOUT_S = 5.0

# Hours in which no process asks again after one has failed: a machine without network would wait
# at each start.
PAUSE_H = 6.0

log = logging.getLogger(__name__)


class Auto:
    """Find faces with YuNet if its model can be had, else with the Haar cascade.

    The model (230 kB, MIT licence) is taken from the cache, or fetched into it once: with a short
    time-out, at most one try a process, and none for six hours after a failed one. With
    FKP_OFFLINE=1 the network is never asked. A fall back to the cascade is logged once, and
    `chosen` says which detector is used.

    Args:
        smallest: side of the smallest face, see `fkp.detectors.views.smallest_face`.
        turned: as of YuNet; the cascade would draw false boxes in turned images.
    """

    def __init__(self, smallest: float | None = None, turned: bool = True):
        # The cascade refuses a wrong value at once, YuNet when it is first used.
        self.smallest, self.turned = HaarCascade(smallest=smallest).smallest, turned

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.chosen(image)

    @cached_property
    def chosen(self) -> YuNet | HaarCascade:
        """The detector that is used; the first access may fetch its model."""
        if why_not := _fetch_once():
            _warn_once(why_not)
            return HaarCascade(smallest=self.smallest)
        return YuNet(smallest=self.smallest, turned=self.turned)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "chosen"}


_LOCK = threading.Lock()

# Cache folder's file -> why it could not be fetched; empty if it is there.
_TRIED: dict[Path, str] = {}
_WARNED: set[str] = set()


def _fetch_once() -> str:
    """Have YuNet's model in the cache; return why that failed, or an empty text."""
    with _LOCK:
        file = cached()
        if file not in _TRIED:
            _TRIED[file] = _fetch(file)
        return _TRIED[file]


def _fetch(file: Path) -> str:
    """Fetch the model unless it is in the cache; return why that failed, or an empty text."""
    failed = file.with_name(file.name + ".failed")
    if not is_cached():
        with suppress(OSError):
            if 0 <= time.time() - failed.stat().st_mtime < PAUSE_H * 3600:
                return f"its model could not be fetched in the last {PAUSE_H:.0f} hours"
    try:
        download(TIMEOUT_S, tries=1)
    except FkpError as error:
        with suppress(OSError):
            if not is_offline():
                failed.touch()
        return str(error).splitlines()[0]
    with suppress(OSError):
        failed.unlink(missing_ok=True)
    return ""


def _warn_once(why_not: str) -> None:
    if why_not not in _WARNED:
        _WARNED.add(why_not)
        log.warning("detecting with the Haar cascade instead of YuNet: %s", why_not)
