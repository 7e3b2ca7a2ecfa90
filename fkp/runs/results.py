"""What a run leaves in its folder, and how to find it again."""

from __future__ import annotations

import json
import math
import numbers
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig
from rich.table import Table

from fkp.console import CONSOLE, print_line, relative_path
from fkp.errors import FkpError
from fkp.markup import Markup
from fkp.recipe import Recipe
from fkp.runs import config
from fkp.runs.provenance import LAST, is_rank_zero
from fkp.weights import EXPORTED, FILE, shipped

if TYPE_CHECKING:
    from fkp.data.datamodule import FacesDataModule
    from fkp.face import Face
    from fkp.module import KeypointModule

OUTPUTS = Path("outputs")
CHECKPOINT = "checkpoints/best.ckpt"
TEST_FACES = "test_faces.png"
NEEDLESS = (  # warnings
    ".*LeafSpec.*",  # Lightning 2.6 on torch 2.15, nothing of ours
    "Checkpoint directory .* exists",  # so it is meant to be
    ".*smaller than the logging interval",  # each epoch is logged anyway
    ".*but have no logger configured",  # as the user has asked for
)
FAILURES = 20  # that are printed one by one
SOME = 10_000  # faces tell how good the mean shape is
BETTER = 0.95  # of the NME of the mean shape: what a trained network stays below


def recipe(cfg: dict[str, Any], markup: dict[str, Any]) -> Recipe:
    """Take the recipe of what a training makes from its configuration.

    Args:
        cfg: the resolved configuration of `train.py`.
        markup: `Markup.as_dict()`.
    """
    return Recipe.from_config(cfg, Markup(**markup))


def last_checkpoint(outputs: Path = OUTPUTS) -> Path:
    """The best checkpoint of the newest run.

    Raises:
        FkpError: nothing has been trained yet.
    """
    made = sorted(outputs.rglob(CHECKPOINT), key=lambda path: path.stat().st_mtime)
    if not made:
        raise FkpError(
            f"no trained model in {outputs.resolve()}; train one with `python train.py`, or give ckpt=…"
        )
    return made[-1]


def resolve_checkpoint(ckpt: str | None, predicting: bool = False) -> Path:
    """What a script is to load: the shipped weights for None, the newest run's for `last`, or a path.

    Args:
        predicting: the exported weights will do, for which nobody waits for torch.

    Raises:
        FkpError: nothing has been trained yet, or the shipped weights are not there.
    """
    if ckpt is None:
        return shipped(EXPORTED if predicting else FILE)
    return last_checkpoint() if ckpt == "last" else Path(ckpt)


def start_from(module: KeypointModule, path: str) -> None:
    """Copy the weights of a checkpoint into a module's network, for a new training.

    Args:
        module: before its training.
        path: of a checkpoint, or `shipped`.

    Raises:
        FkpError: there is no such file, or its weights or its points do not fit.
    """
    from fkp.inference.torch_engine import rebuild

    network, recipe = rebuild(shipped() if path == "shipped" else Path(path))
    if recipe.markup.points != list(module.markup.points):
        theirs = f"{recipe.markup.name} ({len(recipe.markup.points)} points)"
        raise FkpError(f"weights={path}: finds the points of {theirs}, not of {module.markup.name}")

    try:
        module.start_from(network)
    except RuntimeError as error:
        raise FkpError(
            f"weights={path}: do not fit this network ({str(error).splitlines()[1].strip()})"
        ) from None


def trainer(cfg: DictConfig, **logging: Any) -> Any:
    """The Trainer of a configuration, with its callbacks and logger.

    Args:
        cfg: of `train.py`.
        logging: what a run that goes on has to tell TensorBoard's logger.

    Raises:
        FkpError: callbacks that are not in their group.
    """
    from pytorch_lightning.callbacks import Checkpoint, LearningRateMonitor, ProgressBar

    for needless in NEEDLESS:
        warnings.filterwarnings("ignore", message=needless)
    if "callbacks" in cfg.trainer:
        raise FkpError(
            "trainer.callbacks: they are a group; add yours with +callbacks.mine={_target_: …}"
        )
    callbacks = [
        config.build(callback) for callback in (cfg.get("callbacks") or {}).values() if callback
    ]
    logger = _logger(cfg, logging)
    unwanted: list[type] = [] if logger else [LearningRateMonitor]
    unwanted += [Checkpoint] if cfg.trainer.get("enable_checkpointing") is False else []
    unwanted += [ProgressBar] if cfg.trainer.get("enable_progress_bar") is False else []
    callbacks = [callback for callback in callbacks if not isinstance(callback, tuple(unwanted))]

    return config.build(
        cfg.trainer,
        callbacks=callbacks,
        logger=logger,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        precision=precision(cfg.trainer.precision),
        sync_batchnorm=bool(cfg.trainer.get("sync_batchnorm")) and on_gpu(cfg.trainer.accelerator),
    )


def _logger(cfg: DictConfig, logging: dict[str, Any]) -> Any:
    """The logger of the group, unless the Trainer's own key says otherwise; False for none."""
    node = cfg.trainer.get("logger", True)
    node = cfg.get("logger") if node is True else node
    if not node:
        return False
    for_tensorboard = isinstance(node, DictConfig) and str(node.get("_target_")).endswith(
        "TensorBoardLogger"
    )
    return config.build(node, **(logging if for_tensorboard else {}))


def best(trainer: Any, folder: Path) -> tuple[Path, float]:
    """The checkpoint that a training has come to, and its validation NME, percent: the best, or the weights of the last
    epoch if no ModelCheckpoint has kept a best; NaN without validation."""
    from fkp.runs.resume import LastCheckpoint

    if not any(
        isinstance(callback, LastCheckpoint) for callback in trainer.checkpoint_callbacks
    ):  # resume=… needs it
        trainer.save_checkpoint(folder / LAST, weights_only=False)
    for callback in trainer.checkpoint_callbacks:
        if getattr(callback, "best_model_score", None) is not None:
            return Path(callback.best_model_path), float(callback.best_model_score)
    trainer.save_checkpoint(folder / CHECKPOINT, weights_only=False)
    return folder / CHECKPOINT, float(trainer.callback_metrics.get("val/nme", math.nan))


def on_gpu(accelerator: str) -> bool:
    """Whether a Trainer with this word takes a GPU. Without one, torch's SyncBatchNorm fails."""
    import torch

    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def precision(wanted: str | None) -> str | None:
    """What a Trainer is to compute in: `auto` is half where the device has instructions for it, else single; other
    words are Lightning's and stay as they are.

    A processor without such instructions emulates them: a step then takes nine times as long.
    """
    import torch

    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return (
            "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
        )
    able: dict[str, bool] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # the oldest torch has none
    return "bf16-mixed" if able.get("avx512_bf16") or able.get("amx_bf16") else "32-true"


def close(
    run_dir: Path,
    cfg: dict[str, Any],
    varied: dict[str, Any],
    trainer: Any,
    figures: dict[str, float],
    photo: Path,
) -> None:
    """End a training: HPARAMS and configuration for TensorBoard, figures as JSON, and where to go on.

    Args:
        run_dir: the run's folder.
        cfg: the resolved configuration.
        varied: what distinguishes the run from others, from `config.varied`.
        trainer: that trained; of several processes, only the first has anything to do.
        figures: of the test part, percent, under their logged names.
        photo: a picture to go on with.
    """
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        _log_run(logger, cfg, varied, figures)
    # Last: it says that the run is finished.
    (run_dir / "metrics.json").write_text(as_json(figures, indent=1) + "\n", encoding="utf-8")

    names = ("nme", "median", "fr8", "fr10", "auc10")
    rows = {
        "this network": {
            name: figures[f"test/{name}"] for name in names if f"test/{name}" in figures
        }
    }
    if "test/nme_mean_shape" in figures:
        rows["mean shape"] = {"nme": figures["test/nme_mean_shape"]}
    print_metrics(rows, "test faces, % of the outer-eye distance")
    say_if_untrained(figures["test/nme"], trainer)

    checkpoint = shlex.quote(str(relative_path(run_dir / CHECKPOINT)))
    print_line(f"checkpoint  {checkpoint}")
    if (run_dir / TEST_FACES).exists():
        print_line(f"faces       {relative_path(run_dir / TEST_FACES)}")
    print_line(f"go on with  python predict.py image={shlex.quote(str(photo))} ckpt={checkpoint}")
    if (run_dir / "tensorboard").exists():
        print_line(f"            tensorboard --logdir {shlex.quote(str(relative_path(run_dir)))}")


def say_if_untrained(nme: float, trainer: Any) -> None:
    """Say that a network is hardly better than the mean training face in the face box, and what may help.

    Args:
        nme: of the test faces, percent.
        trainer: that trained it.
    """
    from fkp.inference.evaluation import baseline

    data = trainer.datamodule
    train, test = (data.splits[part].table for part in ("train", "test"))
    few = [table.select(slice(None, None, 1 + len(table) // SOME)) for table in (train, test)]
    of_mean = baseline(few[0], few[1], data.source.markup)
    if nme < BETTER * of_mean:
        return
    print_line(
        f"no better than the mean shape: NME {nme:.2f} on test faces, and {of_mean:.2f} for the mean training face put "
        f"into their boxes, after {trainer.global_step} optimizer steps on {len(train)} faces. Train longer, "
        f"trainer.max_epochs={5 * (trainer.current_epoch or 1)}, or with another recipe, such as experiment=heatmap"
    )


def _log_run(
    logger: Any, cfg: dict[str, Any], varied: dict[str, Any], figures: dict[str, float]
) -> None:
    """Hand a run's keys, figures and configuration to its logger, as far as it takes them."""
    from pytorch_lightning.loggers import TensorBoardLogger

    if isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(varied, figures)
        logger.experiment.add_text(
            "config", "```yaml\n" + yaml.safe_dump(cfg, sort_keys=False) + "```"
        )
    else:
        logger.log_hyperparams(varied)
    logger.finalize("success")


def as_json(record: dict[str, Any], indent: int | None = None) -> str:
    """Strict JSON of a record: numbers of four decimals; null for what is not finite."""
    return json.dumps(
        {name: _rounded(value) for name, value in record.items()}, indent=indent, allow_nan=False
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, numbers.Integral):  # NumPy's, too
        return value if isinstance(value, bool) else int(value)
    if isinstance(value, numbers.Real):
        return round(float(value), 4) if math.isfinite(value) else None
    return value


def debug(data: FacesDataModule, run_dir: Path) -> None:
    """Draw what training would see, and print where."""
    from fkp.draw import visualize_augmentations
    from fkp.files.images import write_image

    data.setup()
    sheet = visualize_augmentations(data.splits["train"], data.source.markup)
    print_line(
        f"faces       {relative_path(write_image(run_dir / 'augment.png', sheet))}: a row each, first without a draw"
    )


def show_network(module: KeypointModule) -> None:
    """Print what is trained."""
    if is_rank_zero():
        count = sum(weight.numel() for weight in module.network.parameters())
        print_line(f"network     {type(module.network).__name__}, {count / 1e6:.2f} M parameters")


def print_metrics(rows: dict[str, dict[str, float]], title: str) -> None:
    """Print a table of figures, a column for each set of them."""
    print_line(title)
    table = Table("", *rows)
    for name in dict.fromkeys(name for figures in rows.values() for name in figures):
        cells = [figures.get(name, "") for figures in rows.values()]
        table.add_row(
            name, *(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells)
        )
    CONSOLE.print(table)


def print_faces(
    faces: list[Face], image: str, ckpt: str | Path, out: Path, drawn: str | None
) -> None:
    """Print what was found in a picture, and where its files lie: `out` with their endings."""
    if faces:
        table = Table("face", "box: left, top, right, bottom", "points", "score", "confidence")
        for number, face in enumerate(faces, 1):
            box = ", ".join(f"{edge:.0f}" for edge in face.box)
            table.add_row(
                str(number),
                box,
                str(len(face.points)),
                f"{face.score:.2f}",
                f"{face.confidence.mean():.2f}",
            )
        CONSOLE.print(table)
    else:
        print_line(f"no face found in {image}; detector=yunet also finds turned and covered ones")
    print_line(f"model       {relative_path(Path(ckpt))}")
    if drawn is not None:
        print_line(f"picture     {relative_path(Path(f'{out}.{drawn}'))}")
    print_line(f"points      {relative_path(Path(f'{out}.json'))}")


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """Print what became of many pictures or frames, and why some could not be read."""
    table = Table(show_header=False)
    for name, value in summary.items():
        table.add_row(
            name.replace("_", " "), str(len(value) if isinstance(value, (dict, list)) else value)
        )
    CONSOLE.print(table)
    for note in summary["notes"] if isinstance(summary.get("notes"), list) else []:
        print_line(f"note        {note}")
    for title in ("failed", "notes"):
        reasons = summary[title] if isinstance(summary.get(title), dict) else {}
        for path, reason in list(reasons.items())[:FAILURES]:
            print_line(f"{title:12}{path}: {reason}")
        if len(reasons) > FAILURES:
            print_line(
                f"            and {len(reasons) - FAILURES} more: {relative_path(folder / 'summary.json')}"
            )
    print_line(f"results     {relative_path(folder)}")
