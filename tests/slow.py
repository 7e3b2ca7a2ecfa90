"""A callback that the tests put into a run, to have the time to do something to it."""

import time
from typing import Any

import pytorch_lightning as pl


class Slow(pl.Callback):
    """Takes its time before each step.

    Args:
        seconds: a step.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds

    def on_train_batch_start(self, *_: Any) -> None:
        time.sleep(self.seconds)
