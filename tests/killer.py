"""A callback that the tests put into a run: it kills its own process, or a loader's, at a known step."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl


class Kill(pl.Callback):
    """Sends signals before steps, each once, however often the run goes on.

    Args:
        at: step -> signal.
        folder: where it is noted that a signal has been sent.
        child: to the loader's process instead.
    """

    def __init__(self, at: dict[int, int], folder: str, child: bool = False):
        self.at, self.folder, self.child = {int(step): number for step, number in at.items()}, Path(folder), child

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        note = self.folder / f"step{trainer.global_step}"
        if trainer.global_step in self.at and not note.exists():
            note.touch()
            target = multiprocessing.active_children()[0].pid if self.child else os.getpid()
            os.kill(target or 0, self.at[trainer.global_step])
