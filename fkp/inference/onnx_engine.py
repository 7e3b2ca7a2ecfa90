"""Run an exported file with onnxruntime; torch is not imported."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import weakref
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fkp.errors import FkpError, one_line
from fkp.recipe import KEY, Recipe

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Before onnxruntime is imported: its telemetry thread makes a forked process hang when it exits.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# The seal is a last entry of metadata, laid out as in ONNX: the SHA-256 of all bytes before it.
SEAL = b"\x72\x4e\x0a\x0afkp.sha256\x12\x40"
DIGEST_DIGITS = 64
SEAL_BYTES = len(SEAL) + DIGEST_DIGITS

# What all files together may compute with; a thousand faces at once take half of it.
MEMORY_BYTES = 2**32
MAX_FILE_BYTES = 2**31  # of the format

SESSION_OPTIONS = {
    # Threads that spin while they wait would take the cores from OpenCV, which detects next.
    "session.intra_op.allow_spinning": "0",
    "session.load_model_format": "ONNX",
    "optimization.constant_folding_max_output_size_in_bytes": "16777216",
}


class OnnxEngine:
    """Run a file of `export.py`: scaling of pixels and decoding of heat maps are part of it.

    Several threads may use one engine at once. A copy, an unpickled engine and one in a forked
    process open their own session, from the content of the file, which is kept.

    Args:
        path: of the file.
        threads: of one run; 0 for as many as there are cores.

    Raises:
        FkpError: the file was not made by `export.py`, or is damaged.
    """

    def __init__(self, path: Path, threads: int = 0):
        self.path, self.threads, self.content = path, threads, _checked_content(path)

        self.session: InferenceSession | None = self._open(bounded=True)
        try:
            values = json.loads(self.session.get_modelmeta().custom_metadata_map[KEY])
        except KeyError:
            raise FkpError(f"{path}: has no recipe; make it with `python export.py`") from None
        except Exception as error:  # unchecked values can raise anything
            raise _cannot_load(path, error) from None

        self.recipe = Recipe.from_file(values, path)
        _ENGINES.add(self)

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # A new session needs no memory bound, as the file has been tried before. In a forked
        # process it must not have one: the shared arena may be locked for ever.
        session = self.session = self.session or self._open()
        try:
            points, confidence = session.run(
                ["points", "confidence"], {"crops": np.ascontiguousarray(crops)}
            )
        except Exception as error:  # onnxruntime's errors have no other common class
            raise FkpError(f"{self.path}: onnxruntime cannot run it ({one_line(error)})") from None
        return points, confidence

    def _open(self, bounded: bool = False) -> InferenceSession:
        """Open a session.

        Args:
            bounded: take memory from the bounded arena.
        """
        import onnxruntime  # here: it takes long, and not every import of fkp needs it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 4  # the exception reports each error once
        options.add_session_config_entry("session.use_env_allocators", str(int(bounded)))
        for name, value in SESSION_OPTIONS.items():
            options.add_session_config_entry(name, value)

        try:
            if bounded:
                _register_bounded_arena()
            providers = ["CPUExecutionProvider"]
            return onnxruntime.InferenceSession(
                self.content, options, providers, enable_fallback=False
            )
        except Exception as error:  # onnxruntime's errors have no other common class
            raise _cannot_load(self.path, error) from None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"session": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        _ENGINES.add(self)


# All engines of this process. A fork copies their sessions, but not the threads of these.
_ENGINES: weakref.WeakSet[OnnxEngine] = weakref.WeakSet()


def _abandon_sessions() -> None:
    """Drop the sessions of a forked process without destroying them, which would crash or hang."""
    for engine in _ENGINES:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine.session))
        engine.session = None


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_abandon_sessions)


def seal(file: Path) -> None:
    """Append the SHA-256 of an exported file's content to it: ONNX has no checksums."""
    content = file.read_bytes()
    file.write_bytes(content + SEAL + hashlib.sha256(content).hexdigest().encode())


def _checked_content(path: Path) -> bytes:
    """Read an exported file.

    Raises:
        FkpError: it is too large, damaged, or refers to other files.
    """
    if path.stat().st_size >= MAX_FILE_BYTES:
        raise FkpError(f"{path}: larger than an ONNX file can be; not read")
    content = path.read_bytes()

    sealed, end = content[:-SEAL_BYTES], content[-SEAL_BYTES:]
    mark, digest = end[: len(SEAL)], end[len(SEAL) :]
    if mark == SEAL and hashlib.sha256(sealed).hexdigest().encode() != digest:
        raise FkpError(
            f"{path}: damaged, its SHA-256 differs; download it again, or make it with"
            " `python export.py`"
        )

    # External weights are named by a string "location", preceded by its length, 8, which may be
    # encoded in one byte or more.
    if re.search(rb"[\x08\x00]location", content):
        raise FkpError(
            f"{path}: needs weights in another file, which is not read; make it with"
            " `python export.py`"
        )
    return content


@cache
def _register_bounded_arena() -> None:
    """Register one memory arena of bounded size for all sessions: a file could compute with any.

    Registering it twice, as two threads that load at once may do, has no effect.
    """
    import onnxruntime as ort

    cpu = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(cpu, ort.OrtArenaCfg({"max_mem": MEMORY_BYTES}))


def _cannot_load(path: Path, error: Exception) -> FkpError:
    return FkpError(f"{path}: not a file that onnxruntime can run ({one_line(error)})")
