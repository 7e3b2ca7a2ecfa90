"""Derive the number of epochs of a training from its number of optimizer steps, `steps`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig, open_dict

from fkp.errors import FkpError
from fkp.runs.overrides import key

if TYPE_CHECKING:
    from fkp.data.datamodule import FacesDataModule

EPOCHS, CADENCE = "trainer.max_epochs", "trainer.check_val_every_n_epoch"
# Validations of a training, about; each also saves a checkpoint and is a point of the curves.
VALIDATIONS = 50


def refuse_both(cfg: DictConfig, command: Sequence[str]) -> None:
    """Refuse a command line that gives both the number of steps and that of epochs.

    Args:
        cfg: of conf/train.yaml.
        command: the overrides.

    Raises:
        FkpError: names both keys.
    """
    if cfg.steps is None or not any(key(one) == EPOCHS for one in command):
        return
    hint = f"omit {EPOCHS}, or set steps=null"
    raise FkpError(
        f"steps={cfg.steps}: the number of epochs follows from it and the number of faces, but "
        f"{EPOCHS}={cfg.trainer.max_epochs} is given, too; {hint}",
        key="steps",
        hint=hint,
    )


def derive_epochs(cfg: DictConfig, data: FacesDataModule) -> None:
    """Set `trainer.max_epochs` by `steps`, and validate about 50 times, the last time at the end.

    Schedulers refer to `trainer.max_epochs`, so they follow. Without `steps`, nothing changes.

    Args:
        cfg: of conf/train.yaml; changed in place.
        data: set up here, as its number of training faces is needed.
    """
    if cfg.steps is None:
        return
    data.setup()
    per_epoch = _steps_per_epoch(len(data.train_dataloader()), cfg.trainer)
    epochs = math.ceil(cfg.steps / per_epoch)

    every = cfg.trainer.get("check_val_every_n_epoch") or max(1, epochs // VALIDATIONS)
    every = min(every, epochs)
    with open_dict(cfg):
        cfg.trainer.max_epochs = every * math.ceil(epochs / every)
        cfg.trainer.check_val_every_n_epoch = every


def _steps_per_epoch(batches: int, trainer: DictConfig) -> int:
    """Count the optimizer steps of an epoch.

    Args:
        batches: of an epoch, in all processes together.
        trainer: Lightning's settings.
    """
    limit = trainer.get("limit_train_batches")
    if isinstance(limit, float):
        batches = int(batches * limit)
    elif limit is not None:
        batches = min(batches, limit)
    return max(1, math.ceil(batches / (trainer.get("accumulate_grad_batches") or 1)))
