"""Find the checkpoint that a script is to load, and keep the best one of a training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from fkp.errors import FkpError
from fkp.runs.provenance import CHECKPOINT, LAST, last_checkpoint
from fkp.weights import EXPORTED, FILE, shipped

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from fkp.module import KeypointModule


def resolve_checkpoint(ckpt: str | None, predicting: bool = False) -> Path:
    """Find the file that a script is to load.

    Args:
        ckpt: a path, `last` for the newest run's best checkpoint, or None for the shipped weights.
        predicting: whether the exported weights will do, which need no torch.

    Raises:
        FkpError: nothing has been trained yet, or the shipped weights are missing.
    """
    if ckpt is None:
        return shipped(EXPORTED if predicting else FILE)
    return last_checkpoint() if ckpt == "last" else Path(ckpt)


def keep_best(trainer: pl.Trainer, folder: Path) -> tuple[Path, float]:
    """Find the best checkpoint of a training, or write the last weights if none was kept.

    Args:
        trainer: after training.
        folder: of the run.

    Returns:
        the checkpoint, and its validation NME, percent; NaN without validation.
    """
    from pytorch_lightning.callbacks import ModelCheckpoint

    from fkp.runs.resume import LastCheckpoint

    # `resume=…` needs last.ckpt, with or without callbacks.
    callbacks = trainer.checkpoint_callbacks
    if not any(isinstance(callback, LastCheckpoint) for callback in callbacks):
        trainer.save_checkpoint(folder / LAST, weights_only=False)

    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.best_model_score is not None:
            return Path(callback.best_model_path), float(callback.best_model_score)
    trainer.save_checkpoint(folder / CHECKPOINT, weights_only=False)
    return folder / CHECKPOINT, float(trainer.callback_metrics.get("val/nme", math.nan))


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
        raise FkpError(
            f"start.from={path}: finds the points of {theirs}, not of {module.markup.name}"
        )

    try:
        module.start_from(network)
    except RuntimeError as error:
        raise FkpError(
            f"start.from={path}: do not fit this network ({str(error).splitlines()[1].strip()})"
        ) from None
    module.codec.calibration = recipe.calibration  # until the first validation
