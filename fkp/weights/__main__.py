"""Make the shipped files: `python -m fkp.weights outputs/…/checkpoints/best.ckpt`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from fkp.files.torch_archive import read
from fkp.inference.evaluation import example_crops
from fkp.inference.export import export
from fkp.inference.predictor import Predictor
from fkp.recipe import KEY, Recipe
from fkp.weights import FILE, checksum_file, sha256

CALIBRATION_FACES = 64  # synthetic ones, whose ranges the 8 bits of the exported file cover


def ship(checkpoint: Path, file: Path = FILE) -> Path:
    """Write the network and its recipe, the same as ONNX in 8 bits, and the SHA-256 of each.

    Args:
        checkpoint: of `train.py`; with averaged weights, these are shipped.
        file: the checkpoint to write; the ONNX file lies beside it.

    Raises:
        FkpError: the checkpoint has no valid recipe, or the ONNX file differs too much.
    """
    content = read(checkpoint)
    recipe = Recipe.from_file(content.get(KEY), checkpoint)
    weights = {
        name: value.clone()
        for name, value in content["state_dict"].items()
        if name.startswith("network.")
    }
    torch.save({KEY: recipe.as_dict(), "state_dict": weights}, file)

    exported = file.with_suffix(".onnx")
    crops = example_crops(Predictor.load(file, device="cpu"), None, CALIBRATION_FACES)
    export(file, exported, crops, int8=True)

    for made in (file, exported):
        checksum_file(made).write_text(f"{sha256(made)}  {made.name}\n", encoding="ascii")
    return file


if __name__ == "__main__":
    print(ship(Path(sys.argv[1])))
