"""The shipped weights, each file with its SHA-256 beside it, and their model card.

    python -m fkp.weights outputs/…/checkpoints/best.ckpt

makes these files from a training's checkpoint: the network and its recipe, without the optimizer;
and the same as ONNX, which predicts without torch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from fkp.errors import FkpError

FILE = Path(__file__).with_name("fkp68.ckpt")
EXPORTED = FILE.with_suffix(".onnx")


def shipped(file: Path = FILE) -> Path:
    """Return the path of shipped weights, after comparing their SHA-256.

    Raises:
        FkpError: they are missing, or are not the file that was shipped.
    """
    checksum = checksum_file(file)
    if not file.is_file() or not checksum.is_file():
        raise FkpError(
            f"{file}: the shipped weights are missing; reinstall fkp, or name other weights: ckpt=…"
        )
    if sha256(file) != checksum.read_text(encoding="ascii").split()[0]:
        raise FkpError(f"{file}: not the file that was shipped, its SHA-256 differs; reinstall fkp")
    return file


def checksum_file(file: Path) -> Path:
    """Return the path of the file that holds a file's SHA-256."""
    return file.with_name(f"{file.name}.sha256")


def sha256(file: Path) -> str:
    """Compute the SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
