"""`python -m fkp.weights outputs/…/checkpoints/best.ckpt` makes the shipped files of a training's checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from fkp.files.torch_archive import read
from fkp.inference.evaluation import example_crops
from fkp.inference.export import export
from fkp.inference.predictor import Predictor
from fkp.recipe import KEY, Recipe
from fkp.weights import FILE, beside, digest


def ship(checkpoint: Path, file: Path = FILE) -> Path:
    """Write the network alone, and the same as ONNX in whole numbers; a SHA-256 beside each.

    Args:
        checkpoint: of `train.py`; with averaged weights, those are shipped.
    """
    whole = read(checkpoint)
    weights = {
        name: value.clone()
        for name, value in whole["state_dict"].items()
        if name.startswith("network.")
    }
    recipe = Recipe.from_file(whole.get(KEY), checkpoint)
    torch.save({KEY: recipe.as_dict(), "state_dict": weights}, file)
    exported = file.with_suffix(".onnx")
    export(file, exported, example_crops(Predictor.load(file, device="cpu"), None, 64), int8=True)
    for made in (file, exported):
        beside(made).write_text(f"{digest(made)}  {made.name}\n", encoding="ascii")
    return file


if __name__ == "__main__":
    print(ship(Path(sys.argv[1])))
