"""`python -m fkp.weights outputs/…/checkpoints/best.ckpt` makes the shipped file of a training's checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from fkp.weights import FILE, digest


def ship(checkpoint: Path, file: Path = FILE) -> Path:
    """Write the network alone, and its SHA-256 beside it.

    Args:
        checkpoint: of `train.py`; with averaged weights, those are shipped.
    """
    whole = torch.load(checkpoint, map_location="cpu", weights_only=True)
    weights = {name: value.clone() for name, value in whole["state_dict"].items() if name.startswith("network.")}
    torch.save({"fkp": whole["fkp"], "state_dict": weights}, file)
    file.with_suffix(".sha256").write_text(f"{digest(file)}  {file.name}\n", encoding="ascii")
    return file


if __name__ == "__main__":
    print(ship(Path(sys.argv[1])))
