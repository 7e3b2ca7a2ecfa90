"""Print and write what a run leaves: metrics, tables, and where its files are."""

from __future__ import annotations

import json
import math
import numbers
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.table import Table

from fkp.console import CONSOLE, print_line, relative_path
from fkp.runs.provenance import CHECKPOINT, is_rank_zero

if TYPE_CHECKING:
    from fkp.data.datamodule import FacesDataModule
    from fkp.face import Face
    from fkp.module import KeypointModule

TEST_FACES = "test_faces.png"
# Failures that are printed one by one.
FAILURES = 20
# Faces that suffice to measure the mean shape.
SOME = 10_000
# Metrics that are printed.
NAMES = ("nme", "median", "fr8", "fr10", "auc10")
# Fraction of the mean shape's NME below which a network counts as trained.
BETTER = 0.95


def close(
    run_dir: Path,
    cfg: dict[str, Any],
    varied: dict[str, Any],
    trainer: Any,
    metrics: dict[str, float],
    photo: Path,
) -> None:
    """End a training: log its configuration, write metrics.json, and print what to do next.

    Args:
        run_dir: the run's folder.
        cfg: the resolved configuration.
        varied: what distinguishes the run from others, from `config.varied`.
        trainer: that trained; on any rank but zero, this function does nothing.
        metrics: of the test faces, percent, by their logged names.
        photo: an image to suggest for a prediction.
    """
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        _log_run(logger, cfg, varied, metrics)
    # Write metrics.json last: it marks the run as finished.
    (run_dir / "metrics.json").write_text(as_json(metrics, indent=1) + "\n", encoding="utf-8")

    _print_test(metrics, trainer, cfg["steps"] is not None)

    # Files and commands
    checkpoint = shlex.quote(str(relative_path(run_dir / CHECKPOINT)))
    print_line(f"checkpoint  {checkpoint}")
    if (run_dir / TEST_FACES).exists():
        print_line(f"faces       {relative_path(run_dir / TEST_FACES)}")
    print_line(f"go on with  python predict.py image={shlex.quote(str(photo))} ckpt={checkpoint}")
    if (run_dir / "tensorboard").exists():
        print_line(f"            tensorboard --logdir {shlex.quote(str(relative_path(run_dir)))}")


def _print_test(metrics: dict[str, float], trainer: Any, by_steps: bool) -> None:
    """Print the metrics of the test faces, beside those of the mean shape.

    Args:
        metrics, trainer: as in `close`.
        by_steps: the length of the training is given as `steps`.
    """
    unit = trainer.lightning_module.markup.unit
    if "cv/nme" in metrics:
        fitted = {name.removeprefix("cv/"): value for name, value in metrics.items()}
        rows = {"this network": {name: fitted[name] for name in NAMES}}
        title = f"{metrics['cv/faces']} faces, each by a map fitted without its person"
        print_metrics(rows, f"{title}, % of {unit}")
    elif "test/nme" not in metrics:
        print_line("metrics     no face was left to test on (data.fold=all or data.protocol=all)")
    if "test/nme" not in metrics:
        return
    tested = {name: metrics[f"test/{name}"] for name in NAMES if f"test/{name}" in metrics}
    rows = {"this network": tested}
    if "test/nme_mean_shape" in metrics:
        rows["mean shape"] = {"nme": metrics["test/nme_mean_shape"]}
    print_metrics(rows, f"test faces, % of {unit}")
    say_if_untrained(metrics["test/nme"], trainer, by_steps)


def say_if_untrained(nme: float, trainer: Any, by_steps: bool = False) -> None:
    """Warn if a network is hardly better than the mean training face placed in the face box.

    Args:
        nme: of the test faces, percent.
        trainer: that trained the network.
        by_steps: the length of the training is given as `steps`.
    """
    from fkp.inference.evaluation import baseline

    data = trainer.datamodule
    train, test = (data.splits[split].table for split in ("train", "test"))
    few = [table.select(slice(None, None, 1 + len(table) // SOME)) for table in (train, test)]
    of_mean = baseline(few[0], few[1], data.source.markup)
    if nme < BETTER * of_mean:
        return
    epochs = f"trainer.max_epochs={5 * (trainer.current_epoch or 1)}"
    longer = f"steps={5 * (trainer.global_step or 1)}" if by_steps else epochs
    print_line(
        f"no better than the mean shape: NME {nme:.2f} on the test faces, {of_mean:.2f} for the "
        f"mean training face placed in their boxes, after {trainer.global_step} optimizer steps "
        f"on {len(train)} faces. Train longer, {longer}, or with another "
        "recipe, such as experiment=heatmap"
    )


def _log_run(
    logger: Any, cfg: dict[str, Any], varied: dict[str, Any], metrics: dict[str, float]
) -> None:
    """Log the varied keys of a run and, to TensorBoard, its metrics and configuration."""
    from pytorch_lightning.loggers import TensorBoardLogger

    if isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(varied, metrics)
        text = yaml.safe_dump(cfg, sort_keys=False)
        logger.experiment.add_text("config", f"```yaml\n{text}```")
    else:
        logger.log_hyperparams(varied)
    logger.finalize("success")


def as_json(record: dict[str, Any], indent: int | None = None) -> str:
    """Write a record as strict JSON: four decimals, and null for numbers that are not finite."""
    rounded = {name: _rounded(value) for name, value in record.items()}
    return json.dumps(rounded, indent=indent, allow_nan=False)


def _rounded(value: Any) -> Any:
    # NumPy's numbers, too, are Integral or Real.
    if isinstance(value, numbers.Integral):
        return value if isinstance(value, bool) else int(value)
    if isinstance(value, numbers.Real):
        return round(float(value), 4) if math.isfinite(value) else None
    return value


def debug(data: FacesDataModule, run_dir: Path) -> None:
    """Write a grid of augmented training faces, and print its file."""
    from fkp.draw import visualize_augmentations
    from fkp.files.images import write_image

    data.setup()
    grid = visualize_augmentations(data.splits["train"], data.source.markup)
    file = write_image(run_dir / "augment.png", grid)
    print_line(f"faces       {relative_path(file)}: one per row, the first without augmentation")


def show_network(module: KeypointModule) -> None:
    """Print the network's name and its number of parameters."""
    if is_rank_zero():
        count = sum(weight.numel() for weight in module.network.parameters())
        print_line(f"network     {type(module.network).__name__}, {count / 1e6:.2f} M parameters")


def print_metrics(rows: dict[str, dict[str, float]], title: str) -> None:
    """Print a table of metrics, one column for each entry of `rows`."""
    print_line(title)
    table = Table("", *rows)
    for name in dict.fromkeys(name for metrics in rows.values() for name in metrics):
        cells = [metrics.get(name, "") for metrics in rows.values()]
        shown = [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells]
        table.add_row(name, *shown)
    CONSOLE.print(table)


def print_faces(
    faces: list[Face],
    image: str,
    ckpt: str | Path,
    out: Path,
    drawn: str | None,
    detector: dict[str, str | None],
) -> None:
    """Print the faces of an image and the files of the result.

    Args:
        faces: that were found.
        image: as the user named it.
        ckpt: of the model.
        out: the result's path without an ending.
        drawn: the ending of the annotated image; None if there is none.
        detector: its description.
    """
    if faces:
        table = Table("face", "box: left, top, right, bottom", "points", "score", "confidence")
        for number, face in enumerate(faces, 1):
            box = ", ".join(f"{edge:.0f}" for edge in face.box)
            score, confidence = f"{face.score:.2f}", f"{face.confidence.mean():.2f}"
            table.add_row(str(number), box, str(len(face.points)), score, confidence)
        CONSOLE.print(table)
    else:
        better = detector["name"] == "HaarCascade"
        more = "; detector=yunet also finds rotated and occluded ones" if better else ""
        print_line(f"no face found in {image}{more}")

    print_line(f"detector    {one_detector(detector)}")
    print_line(f"model       {relative_path(Path(ckpt))}")
    if drawn is not None:
        print_line(f"image       {relative_path(Path(f'{out}.{drawn}'))}")
    print_line(f"points      {relative_path(Path(f'{out}.json'))}")


def one_detector(detector: dict[str, str | None]) -> str:
    """Return the name and the version of a detector in one text."""
    return " ".join(filter(None, (detector["name"], detector["version"])))


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """Print the counts of many images or frames, and why some could not be read.

    Args:
        summary: counts, lists and reasons by path, as `fkp.inference.writers` makes them.
        folder: of the results.
    """
    table = Table(show_header=False)
    for name, value in summary.items():
        if name == "detector":
            table.add_row(name, one_detector(value))
            continue
        count = len(value) if isinstance(value, (dict, list)) else value
        table.add_row(name.replace("_", " "), str(count))
    CONSOLE.print(table)

    # `notes` is a list for a video, and a dictionary by path for a collection of images.
    for note in summary["notes"] if isinstance(summary.get("notes"), list) else []:
        print_line(f"note        {note}")
    for title in ("failed", "notes"):
        reasons = summary[title] if isinstance(summary.get(title), dict) else {}
        for path, reason in list(reasons.items())[:FAILURES]:
            print_line(f"{title:12}{path}: {reason}")
        if len(reasons) > FAILURES:
            file = relative_path(folder / "summary.json")
            print_line(f"            and {len(reasons) - FAILURES} more: {file}")
    print_line(f"results     {relative_path(folder)}")
