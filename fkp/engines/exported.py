"""Exported files, run by onnxruntime: no torch is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fkp.errors import FkpError

METADATA = "fkp"  # under which an exported file keeps its recipe


class OnnxEngine:
    """A file of `export.py`: crops in, points out; pixels are scaled and maps decoded inside.

    Args:
        path: of the file.
        threads: that one run may use; 0 for as many as there are cores.

    Raises:
        FkpError: the file is none of export.py's.
    """

    def __init__(self, path: Path, threads: int = 0):
        import onnxruntime  # here: nobody else waits for it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that wait by spinning would take the cores from OpenCV's, which look for faces in the next moment.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self.recipe: dict[str, Any] = json.loads(self.session.get_modelmeta().custom_metadata_map[METADATA])
        except KeyError:
            raise FkpError(f"{path}: says nothing of its points and crops; make it with `python export.py`") from None
        except Exception as error:  # onnxruntime's own have no common class but this
            reason = (str(error).splitlines() or [""])[0]
            raise FkpError(f"{path}: not a file that onnxruntime can run ({reason})") from None

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points, confidence = self.session.run(["points", "confidence"], {"crops": np.ascontiguousarray(crops)})
        return points, confidence
