"""What runs a trained network: torch on a checkpoint, or onnxruntime on an exported file, without torch."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fkp.errors import FkpError

# The only modules a file may name: loading one never runs foreign code.
REBUILT = ("fkp.networks", "fkp.codecs", "fkp.transforms")


class Engine(Protocol):
    """What all engines are."""

    # How the network wants its faces cropped, and what its points are, as plain values; see `fkp.runs.recipe`.
    recipe: dict[str, Any]

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Crops (B, h, w), or RGB (B, h, w, 3), uint8, to points (B, K, 2), CROP pixels, and confidence (B, K), both
        float32."""
        ...


def load(path: Path, device: str | None = None) -> Engine:
    """The engine for a file, by its ending: `.onnx`, or else a checkpoint.

    Args:
        path: of `train.py` or `export.py`.
        device: such as "cpu" or "cuda", for a checkpoint; None takes a GPU if there is one.

    Raises:
        FkpError: no such file, or it cannot be used.
    """
    if not path.is_file():
        raise FkpError(f"{path}: no such checkpoint; train one with `python train.py`")
    if path.suffix == ".onnx":
        from fkp.engines.exported import OnnxEngine

        return OnnxEngine(path)
    from fkp.engines.checkpoint import TorchEngine  # torch: seconds of imports

    return TorchEngine.load(path, device)


def part(spec: dict[str, Any], path: Path, **more: Any) -> Any:
    """Make one of fkp's own objects from plain values in a file."""
    arguments = {name: value for name, value in spec.items() if name != "_partial_"} | more
    target = str(arguments.pop("_target_", ""))
    module, _, name = target.rpartition(".")
    made = getattr(importlib.import_module(module), name, None) if module in REBUILT else None
    if not isinstance(made, type) or made.__module__ != module:
        raise FkpError(f"{path}: names {target!r}, which is none of fkp's own parts; not loaded")
    try:
        return made(**arguments)
    except TypeError as error:
        raise FkpError(f"{path}: made by another version of fkp ({error})") from None
