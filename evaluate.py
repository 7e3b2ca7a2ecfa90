"""Score a model on labelled faces: `python evaluate.py ckpt=… data=youtube_faces data.root=…`."""

from pathlib import Path

from omegaconf import DictConfig

from fkp.runs import command_line, config


@command_line.main("evaluate")
def evaluate(cfg: DictConfig) -> float:
    """Print the table, save it, and end with one line of JSON; returns the NME on the label's box, percent."""
    from fkp.inference import evaluation
    from fkp.inference.predictor import Predictor
    from fkp.runs import results

    ckpt = results.resolve_checkpoint(cfg.ckpt)
    predictor = Predictor.load(
        ckpt, config.build(cfg.detector), cfg.device, cfg.refine_steps, cfg.min_confidence
    )
    source = config.build(cfg.data)
    rows, count = evaluation.evaluate(predictor, source, cfg.split)

    title = (
        f"{ckpt} on {count} {cfg.split} faces, split={source.protocol}, % of the outer-eye distance"
    )
    results.print_metrics(rows, title)
    figures = {
        f"{name}_{row}": value for row, of_row in rows.items() for name, value in of_row.items()
    }
    record = {"ckpt": str(ckpt), "data": config.plain(cfg.data), "part": cfg.split, **figures}
    Path(cfg.run_dir, "metrics.json").write_text(
        results.as_json(record, indent=1) + "\n", encoding="utf-8"
    )
    print(results.as_json(figures))
    return rows["label_box"]["nme"]


if __name__ == "__main__":
    evaluate()
