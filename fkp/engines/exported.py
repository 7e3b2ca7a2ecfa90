"""Exported files, run by onnxruntime: no torch is imported."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fkp.engines import checked
from fkp.errors import FkpError

METADATA = "fkp"  # under which an exported file keeps its recipe
# One more entry of metadata as the file's last bytes, laid out as ONNX does: the SHA-256 of all before, 64 digits.
SEAL = b"\x72\x4e\x0a\x0afkp.sha256\x12\x40"
MEMORY = 2**32  # bytes that all files together may compute with; a thousand faces at once take half of it


class OnnxEngine:
    """A file of `export.py`: crops in, points out; pixels are scaled and maps decoded inside.

    Args:
        path: of the file.
        threads: that one run may use; 0 for as many as there are cores.

    Raises:
        FkpError: the file is none of export.py's, or damaged.
    """

    def __init__(self, path: Path, threads: int = 0):
        import onnxruntime  # here: nobody else waits for it

        _bound_memory()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what is wrong is said once, by the exception
        for name, value in {
            # Threads that wait by spinning would take the cores from OpenCV's, which look for faces in the next moment.
            "session.intra_op.allow_spinning": "0",
            "session.use_env_allocators": "1",
            "session.load_model_format": "ONNX",
            "optimization.constant_folding_max_output_size_in_bytes": "16777216",
        }.items():
            options.add_session_config_entry(name, value)
        content, self.path = _content(path), path
        try:
            providers = ["CPUExecutionProvider"]
            self.session = onnxruntime.InferenceSession(content, options, providers, enable_fallback=False)
            recipe = json.loads(self.session.get_modelmeta().custom_metadata_map[METADATA])
        except KeyError:
            raise FkpError(f"{path}: says nothing of its points and crops; make it with `python export.py`") from None
        except Exception as error:  # onnxruntime's own have no common class but this
            raise FkpError(f"{path}: not a file that onnxruntime can run ({_line(error)})") from None
        self.recipe: dict[str, Any] = checked(recipe, path)

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        try:
            points, confidence = self.session.run(["points", "confidence"], {"crops": np.ascontiguousarray(crops)})
        except Exception as error:
            raise FkpError(f"{self.path}: onnxruntime cannot run it ({_line(error)})") from None
        return points, confidence


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
        raise FkpError(f"{path}: damaged, its SHA-256 differs; fetch it again, or make it with `python export.py`")
    # What names a file of weights does so by a string "location": its length, 8, comes before it, in one byte or more.
    if re.search(rb"[\x08\x00]location", content):
        raise FkpError(f"{path}: wants weights of another file, which is not read; make it with `python export.py`")
    return content


@cache
def _bound_memory() -> None:
    """One pool for all sessions of this process, of bounded size: what a file computes could take any."""
    import onnxruntime as ort

    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(place, ort.OrtArenaCfg({"max_mem": MEMORY}))


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]
