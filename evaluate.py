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

    ckpt = results.chosen(cfg.ckpt)
    predictor = Predictor.load(ckpt, config.build(cfg.detector), cfg.device, cfg.passes, cfg.min_confidence)
    source = config.build(cfg.data)
    rows, count = evaluation.evaluate(predictor, source, cfg.part)

    title = f"{ckpt} on {count} {cfg.part} faces, split={source.split}, % of the outer-eye distance"
    results.show_figures(rows, title)
    figures = {f"{name}_{row}": value for row, of_row in rows.items() for name, value in of_row.items()}
    record = {"ckpt": str(ckpt), "data": config.plain(cfg.data), "part": cfg.part, **figures}
    Path(cfg.run_dir, "figures.json").write_text(results.as_json(record, indent=1) + "\n", encoding="utf-8")
    print(results.as_json(figures))
    return rows["label_box"]["nme"]


if __name__ == "__main__":
    evaluate()
