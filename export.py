"""Write a model as ONNX: `python export.py [ckpt=…] [out=model.onnx] [data=… data.root=…]`."""

from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from fkp import console
from fkp.errors import FkpError
from fkp.runs import command_line, config


@command_line.main("export")
def export(cfg: DictConfig) -> float:
    """Export, compare on faces, and say where it is; returns the largest difference, CROP pixels."""
    from fkp.inference import export
    from fkp.inference.evaluation import example_crops
    from fkp.inference.predictor import Predictor
    from fkp.runs import results

    ckpt, out = results.resolve_checkpoint(cfg.ckpt), Path(cfg.out)
    command_line.make_folder("out", out.parent)
    if out.is_dir() or out.suffix != ".onnx":
        raise FkpError(f"out={out}: name a file that ends in .onnx")
    source = config.build(cfg.data) if "data" in cfg else None
    crops = example_crops(Predictor.load(ckpt, device="cpu"), source, cfg.faces)
    apart = export.export(ckpt, out, np.asarray(crops), cfg.int8)
    console.print_line(
        f"model       {console.relative_path(out)}: {out.stat().st_size / 1e6:.2f} MB, crops of {crops.shape[1:]} uint8"
    )
    console.print_line(
        f"differs by  {apart:.5f} pixels of the crop {'on average' if cfg.int8 else 'at most'}, on {len(crops)} faces"
    )
    console.print_line(f"go on with  python predict.py image=… ckpt={console.relative_path(out)}")
    return apart


if __name__ == "__main__":
    export()
