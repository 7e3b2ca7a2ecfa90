"""The shipped weights, each file checked against its SHA-256, and their model card beside them.

    python -m fkp.weights outputs/…/checkpoints/best.ckpt

makes them of a training's checkpoint: the network and what rebuilds it, without the optimizer; and the same as ONNX,
which predicts without torch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from fkp.errors import FkpError

FILE = Path(__file__).with_name("fkp68.ckpt")
EXPORTED = FILE.with_suffix(".onnx")


def shipped(file: Path = FILE) -> Path:
    """The path of the shipped weights.

    Raises:
        FkpError: they are not there, or not what was shipped.
    """
    sums = beside(file)
    if not file.is_file() or not sums.is_file():
        raise FkpError(
            f"{file}: the shipped weights are not there; install fkp anew, or name others by ckpt=…"
        )
    if digest(file) != sums.read_text(encoding="ascii").split()[0]:
        raise FkpError(
            f"{file}: not the file that was shipped (its SHA-256 differs); install fkp anew"
        )
    return file


def beside(file: Path) -> Path:
    """Where a file's SHA-256 is kept."""
    return file.with_name(f"{file.name}.sha256")


def digest(file: Path) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
