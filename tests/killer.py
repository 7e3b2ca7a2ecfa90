"""Callbacks that tests add to a run: they kill processes, spoil batches or compare weights."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from fkp.errors import FkpError
from fkp.module import gathered


class Kill(pl.Callback):
    """Send signals before given steps, each once, however often the run is resumed.

    Args:
        at: step -> signal; step -1 is the first of the test.
        folder: where a file records that a signal has been sent.
        child: send it to a data loader process instead.
        process: rank of the process that sends and receives it.
    """

    def __init__(self, at: dict[int, int], folder: str, child: bool = False, process: int = 0):
        self.at = {int(step): number for step, number in at.items()}
        self.folder, self.child, self.process = Path(folder), child, process

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any
    ) -> None:
        self._send(trainer.global_step, trainer)

    def on_test_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self._send(-1, trainer)

    def _send(self, step: int, trainer: pl.Trainer) -> None:
        note = self.folder / f"step{step}"
        if trainer.global_rank == self.process and step in self.at and not note.exists():
            note.touch()
            target = multiprocessing.active_children()[0].pid if self.child else os.getpid()
            os.kill(target or 0, self.at[step])


class Spoil(pl.Callback):
    """From the third step on, give rank 1 images of NaN, or let it fail with a message."""

    def __init__(self, message: str | None = None):
        self.message = message

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int
    ) -> None:
        if trainer.global_rank == 1 and trainer.global_step >= 2:
            if self.message:
                raise FkpError(self.message)
            batch["image"].fill_(float("nan"))


class Alike(pl.Callback):
    """Check after each epoch that all processes have the same weights."""

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        first, *others = gathered(
            {name: weight.detach().clone() for name, weight in module.named_parameters()}
        )
        assert others
        for other in others:
            for name, weight in first.items():
                assert torch.equal(weight, other[name]), f"{name} in epoch {trainer.current_epoch}"
