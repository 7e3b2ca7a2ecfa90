"""Exported files, run by onnxruntime: no torch is imported."""

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

from fkp.errors import FkpError
from fkp.recipe import KEY, Recipe, one_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Before onnxruntime is imported: the thread by which it reports its use makes a forked process hang when it exits.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# One more entry of metadata as the file's last bytes, laid out as ONNX does: the SHA-256 of all before, 64 digits.
SEAL = b"\x72\x4e\x0a\x0afkp.sha256\x12\x40"
MEMORY = (
    2**32
)  # bytes that all files together may compute with; a thousand faces at once take half of it


class OnnxEngine:
    """A file of `export.py`: crops in, points out; pixels are scaled and maps decoded inside.

    Several threads may use one engine at once. A copy, an unpickled engine and one in a forked process open a session
    of their own from the bytes of the file, which are kept.

    Args:
        path: of the file.
        threads: that one run may use; 0 for as many as there are cores.

    Raises:
        FkpError: the file is none of export.py's, or damaged.
    """

    def __init__(self, path: Path, threads: int = 0):
        self.path, self.threads, self.content = path, threads, _content(path)
        self.session: InferenceSession | None = self._open(bounded=True)
        try:
            recipe = json.loads(self.session.get_modelmeta().custom_metadata_map[KEY])
        except KeyError:
            raise FkpError(
                f"{path}: says nothing of its points and crops; make it with `python export.py`"
            ) from None
        except Exception as error:  # a file that nobody vouches for can raise anything
            raise FkpError(
                f"{path}: not a file that onnxruntime can run ({one_line(error)})"
            ) from None
        self.recipe = Recipe.from_file(recipe, path)
        _OPEN.add(self)

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # A file that has been tried needs no bound, and in a forked process the common pool may be locked for ever.
        session = self.session = self.session or self._open()
        try:
            points, confidence = session.run(
                ["points", "confidence"], {"crops": np.ascontiguousarray(crops)}
            )
        except Exception as error:
            raise FkpError(f"{self.path}: onnxruntime cannot run it ({one_line(error)})") from None
        return points, confidence

    def _open(self, bounded: bool = False) -> InferenceSession:
        import onnxruntime  # here: nobody else waits for it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 4  # what is wrong is said once, by the exception
        for name, value in {
            # Threads that wait by spinning would take the cores from OpenCV's, which look for faces in the next moment.
            "session.intra_op.allow_spinning": "0",
            "session.use_env_allocators": str(int(bounded)),
            "session.load_model_format": "ONNX",
            "optimization.constant_folding_max_output_size_in_bytes": "16777216",
        }.items():
            options.add_session_config_entry(name, value)
        try:
            if bounded:
                _bound_memory()
            providers = ["CPUExecutionProvider"]
            return onnxruntime.InferenceSession(
                self.content, options, providers, enable_fallback=False
            )
        except Exception as error:  # onnxruntime's own have no common class but this
            raise FkpError(
                f"{self.path}: not a file that onnxruntime can run ({one_line(error)})"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"session": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        _OPEN.add(self)


# All engines of this process. A fork copies their sessions, but not the threads that these wait for.
_OPEN: weakref.WeakSet[OnnxEngine] = weakref.WeakSet()


def _abandon_sessions() -> None:
    """Let the engines of a forked process open sessions of their own; to destroy the old ones would crash or hang."""
    for engine in _OPEN:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine.session))
        engine.session = None


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_abandon_sessions)


def seal(file: Path) -> None:
    """Let an exported file end with the SHA-256 of what it holds: ONNX has no checksums."""
    content = file.read_bytes()
    file.write_bytes(content + SEAL + hashlib.sha256(content).hexdigest().encode())


def _content(path: Path) -> bytes:
    if path.stat().st_size >= 2**31:
        raise FkpError(f"{path}: larger than a file of ONNX can be; not read")
    content = path.read_bytes()
    whole, mark, digits = content[:-80], content[-80:-64], content[-64:]
    if mark == SEAL and hashlib.sha256(whole).hexdigest().encode() != digits:
        raise FkpError(
            f"{path}: damaged, its SHA-256 differs; fetch it again, or make it with `python export.py`"
        )
    # What names a file of weights does so by a string "location": its length, 8, comes before it, in one byte or more.
    if re.search(rb"[\x08\x00]location", content):
        raise FkpError(
            f"{path}: wants weights of another file, which is not read; make it with `python export.py`"
        )
    return content


@cache
def _bound_memory() -> None:
    """One pool for all sessions of this process, of bounded size: what a file computes could take any.

    To register it twice, as two threads may that load at once, does nothing.
    """
    import onnxruntime as ort

    place = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(place, ort.OrtArenaCfg({"max_mem": MEMORY}))
