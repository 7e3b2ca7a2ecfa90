"""The shipped weights: one file, checked against its SHA-256, and its model card beside it.

    python -m fkp.weights outputs/…/checkpoints/best.ckpt

makes the file of a training's checkpoint: the network and what rebuilds it, without the optimizer.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from fkp.errors import FkpError

FILE = Path(__file__).with_name("fkp68.ckpt")


def shipped(file: Path = FILE) -> Path:
    """The path of the shipped weights.

    Raises:
        FkpError: they are not there, or not what was shipped.
    """
    sums = file.with_suffix(".sha256")
    if not file.is_file() or not sums.is_file():
        raise FkpError(f"{file}: the shipped weights are not there; install fkp anew, or name others by ckpt=…")
    if digest(file) != sums.read_text(encoding="ascii").split()[0]:
        raise FkpError(f"{file}: not the file that was shipped (its SHA-256 differs); install fkp anew")
    return file


def digest(file: Path) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
