"""Find the checkpoint that a script is to load, and keep the best one of a training."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

from fkp.errors import FkpError
from fkp.runs.provenance import CHECKPOINT, LAST, last_checkpoint
from fkp.weights import EXPORTED, FILE, shipped

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from fkp.module import KeypointModule
    from fkp.recipe import Recipe

log = logging.getLogger(__name__)


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

    If it finds other points, the tensors that depend on their number stay new, and the log names
    them. A `PointMap` takes the weights as its trunk, so the crops must be those of the trunk's
    training.

    Args:
        module: before its training.
        path: of a checkpoint, or `shipped`.

    Raises:
        FkpError: there is no such file, or its weights or its crops do not fit.
    """
    from fkp.inference.torch_engine import rebuild
    from fkp.point_map import PointMap

    trained, recipe = rebuild(shipped() if path == "shipped" else Path(path))
    network, same = module.network, recipe.markup.points == list(module.markup.points)
    if isinstance(network, PointMap):
        _check_crops(module, recipe, path)
        network, same = network.trunk, True
        trained = trained.trunk if isinstance(trained, PointMap) else trained

    weights, own = trained.state_dict(), network.state_dict()
    kept = {
        name: weight
        for name, weight in weights.items()
        if name in own and weight.shape == own[name].shape
    }
    new = sorted(set(own) - set(kept))
    if not kept or (same and (new or len(kept) < len(weights))):
        what = ", ".join(new or sorted(set(weights) - set(kept)))
        raise FkpError(
            f"start.from={path}: do not fit this network ({what[:200]})", key="start.from"
        )

    network.load_state_dict(kept, strict=False)
    module.untrained = bool(new) and hasattr(network, "start_at")
    if new:
        message = "start.from=%s: %d tensors are kept, and %s are new, as the points are others"
        log.warning(message, path, len(kept), ", ".join(new))
    if recipe.markup.points == list(module.markup.points):
        module.codec.calibration = recipe.calibration  # until the first validation


def _check_crops(module: KeypointModule, recipe: Recipe, path: str) -> None:
    """Refuse crops of another size or place than those that a trunk was trained on.

    Raises:
        FkpError: names the keys that differ, and their values in the checkpoint.
    """
    assert module.recipe is not None
    keys = ["face_crop.scale", "face_crop.offset_y", "rescale.size", "random_crop.size"]
    pairs = [key.split(".") for key in keys]
    ours, theirs = (
        {
            key: each.transforms.get(step, {}).get(name)
            for key, (step, name) in zip(keys, pairs, strict=True)
        }
        for each in (module.recipe, recipe)
    )
    wrong = [key for key in keys if ours[key] != theirs[key]]
    if wrong:
        hint = " ".join(f"transforms.{key}={theirs[key]}" for key in wrong)
        what = f"start.from={path}: was trained on other crops; set {hint}"
        raise FkpError(what, key=f"transforms.{wrong[0]}", hint=hint)
