"""Score a model on labelled faces: the function behind `evaluate.py`."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from fkp.console import print_line
from fkp.runs import command_line, config


@command_line.main("evaluate")
def evaluate(cfg: DictConfig) -> float:
    """Print and save the metrics of a split; the last line of the output is JSON.

    Args:
        cfg: of conf/evaluate.yaml.

    Returns:
        NME of predictions in the box around the labels, percent.

    Raises:
        FkpError: a value, file or folder that a user can correct.
    """
    from fkp.detectors import describe
    from fkp.inference import evaluation
    from fkp.inference.predictor import Predictor
    from fkp.runs import checkpoints, results

    # Predict and compare.
    ckpt = checkpoints.resolve_checkpoint(cfg.ckpt)
    predictor = Predictor.load(
        ckpt, config.build(cfg.detector), cfg.device, cfg.refine_steps, cfg.min_confidence
    )
    source = config.build(cfg.data)
    rows, count = evaluation.evaluate(predictor, source, cfg.split)

    # Print and save.
    rule = f"fold={source.fold}" if source.folds else f"protocol={source.protocol}"
    faces = f"{count} {cfg.split} faces, {rule}"
    results.print_metrics(rows, f"{ckpt} on {faces}, % of {predictor.markup.unit}")
    metrics = {f"{name}_{row}": value for row, of in rows.items() for name, value in of.items()}
    found_by = describe(predictor.detector)
    print_line(f"detector    {results.one_detector(found_by)}")
    inputs = {"ckpt": str(ckpt), "data": config.plain(cfg.data), "part": cfg.split}
    record = {**inputs, "detector": found_by, **metrics}
    text = results.as_json(record, indent=1) + "\n"
    Path(cfg.run_dir, "metrics.json").write_text(text, encoding="utf-8")
    print(results.as_json(metrics))
    return rows["label_box"]["nme"]
