"""Tune a process for training steps and for its console, before it imports torch."""

from __future__ import annotations

import codecs
import ctypes
import io
import logging
import os
import sys

# What to print where the console's encoding lacks a character.
SIGNS = {
    "•": "*",
    "…": "...",
    "±": "+-",
    "×": "x",
    "→": "->",
    "–": "-",
    "—": "-",
    "’": "'",
    "°": " deg",
}
# Of tables and progress bars.
SIGNS |= {"━": "-", "╸": "-", "╺": "-", "│": "|", "─": "-"}

# Parameters of glibc's mallopt, from malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def tune_threads_and_malloc() -> None:
    """Tune OpenMP and malloc for training steps, and prepare the console.

    Call it before torch is imported.

    Threads: a waiting OpenMP thread shall sleep soon. By default it spins, and where other
    processes share the cores, a step then takes up to five times as long.

    Memory: glibc shall keep freed blocks. By default it returns large blocks to the system and maps
    them again, page by page, in every step; a step of `two_conv` takes a fifth less without that.

    Console: characters that its encoding lacks are replaced (`SIGNS`).
    """
    codecs.register_error("fkp.plainer", _replace_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="fkp.plainer")
    # matplotlib logs that it builds a font cache when it is first imported.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)

    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "50000")
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        # Only glibc has it.
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # bytes
            mallopt(M_MMAP_THRESHOLD, 2**30)  # bytes


def _replace_characters(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks, for `codecs.register_error`."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(SIGNS.get(sign) or ascii(sign)[1:-1] for sign in lacking), error.end
