"""A callback that slows a run down, so that a test has time to interrupt it."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl


class Slow(pl.Callback):
    """Wait before each step, and record it.

    Args:
        seconds: to wait.
        file: gets a line per step: epoch, step, number of processes.
    """

    def __init__(self, seconds: float, file: str):
        self.seconds, self.file = seconds, Path(file)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        with self.file.open("a") as steps:
            steps.write(f"{trainer.current_epoch} {trainer.global_step} {trainer.world_size}\n")
        time.sleep(self.seconds)
