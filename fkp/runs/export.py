"""Write a model as ONNX and compare both on faces: the function behind `export.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from fkp.console import print_line, relative_path
from fkp.errors import FkpError
from fkp.runs import command_line, config


@command_line.main("export")
def export(cfg: DictConfig) -> float:
    """Export a model, and print where the file is and how far its points differ.

    Args:
        cfg: of conf/export.yaml.

    Returns:
        the difference between the two models' points, CROP pixels: the mean with `int8`, else the
        largest.

    Raises:
        FkpError: a value, file or folder that a user can correct.
    """
    from fkp.inference.evaluation import example_crops
    from fkp.inference.export import export as export_model
    from fkp.inference.predictor import Predictor
    from fkp.runs.checkpoints import resolve_checkpoint

    # Check the output before the work.
    ckpt, out = resolve_checkpoint(cfg.ckpt), Path(cfg.out)
    command_line.make_folder("out", out.parent)
    if out.is_dir() or out.suffix != ".onnx":
        raise FkpError(f"out={out}: name a file that ends in .onnx")

    # Export and compare.
    source = config.build(cfg.data) if "data" in cfg else None
    crops = example_crops(Predictor.load(ckpt, device="cpu"), source, cfg.faces)
    difference = export_model(ckpt, out, np.asarray(crops), cfg.int8)

    # Report.
    size, which = out.stat().st_size / 1e6, "on average" if cfg.int8 else "at most"
    file = relative_path(out)
    print_line(f"model       {file}: {size:.2f} MB, crops of {crops.shape[1:]} uint8")
    print_line(f"differs by  {difference:.5f} pixels of the crop {which}, on {len(crops)} faces")
    print_line(f"go on with  python predict.py image=… ckpt={file}")
    return difference
