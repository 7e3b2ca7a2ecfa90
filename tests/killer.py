"""Callbacks that the tests put into a run: one kills its own process, or a loader's, at a known step; others spoil the
share of one process, or compare what all of them have learnt."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from fkp.errors import FkpError
from fkp.module import gathered


class Kill(pl.Callback):
    """Sends signals before steps, each once, however often the run goes on.

    Args:
        at: step -> signal; step -1 is the first of the test.
        folder: where it is noted that a signal has been sent.
        child: to the loader's process instead.
        process: of those that train together, by number.
    """

    def __init__(self, at: dict[int, int], folder: str, child: bool = False, process: int = 0):
        self.at, self.folder, self.child = (
            {int(step): number for step, number in at.items()},
            Path(folder),
            child,
        )
        self.process = process

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any
    ) -> None:
        self._at(trainer.global_step, trainer)

    def on_test_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self._at(-1, trainer)

    def _at(self, step: int, trainer: pl.Trainer) -> None:
        note = self.folder / f"step{step}"
        if trainer.global_rank == self.process and step in self.at and not note.exists():
            note.touch()
            target = multiprocessing.active_children()[0].pid if self.child else os.getpid()
            os.kill(target or 0, self.at[step])


class Spoil(pl.Callback):
    """From the third step on the second process sees nothing that is a number, or fails with a message of its own."""

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
    """After each epoch, all processes have the same weights, and trained something."""

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        first, *others = gathered(
            {name: weight.detach().clone() for name, weight in module.named_parameters()}
        )
        assert others
        for other in others:
            for name, weight in first.items():
                assert torch.equal(weight, other[name]), f"{name} in epoch {trainer.current_epoch}"
