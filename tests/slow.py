"""A callback that the tests put into a run, to have the time to do something to it."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl


class Slow(pl.Callback):
    """Takes its time before each step, and notes it.

    Args:
        seconds: a step.
        file: where its epoch, its number and how many processes take it are noted.
    """

    def __init__(self, seconds: float, file: str):
        self.seconds, self.file = seconds, Path(file)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        with self.file.open("a") as steps:
            steps.write(f"{trainer.current_epoch} {trainer.global_step} {trainer.world_size}\n")
        time.sleep(self.seconds)
