"""A training that is stopped, or killed, goes on as if it had not been: bit for bit on a CPU."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from fkp.errors import FkpError
from fkp.files.torch_archive import read
from fkp.module import gathered
from fkp.runs.provenance import Run, is_rank_zero

# What asks for the end: Ctrl-C, a machine that is shut down, and a cluster that wants its node for others: by USR2, or
# by USR1, at which Lightning would write a checkpoint that every later run in the same working folder goes on from.
ASK = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
]
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or not there: a killed or full machine leaves the one before. Loaded as plain data."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write beside the old file, wait for the disk, and rename.

        Raises:
            FkpError: there is no room.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # In memory first: a full disk is then an OSError of ours, and not an assertion in torch.
        data = io.BytesIO()
        torch.save(checkpoint, data)
        draft = path.with_name(f".{path.name}.part")
        try:
            with draft.open("wb") as file:
                file.write(data.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            kept = f"{path} is the one before" if path.exists() else "there was none before"
            raise FkpError(
                f"{path}: no checkpoint could be written ({error.strerror}); {kept}"
            ) from error
        if os.name == "posix":  # the name, too, is on the disk only once its folder is
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Plain data, or FkpError."""
        return read(Path(path))


class LastCheckpoint(Checkpoint):
    """Keeps last.ckpt: at the end of each epoch, every few minutes within one, and when a signal asks to stop.

    It holds, besides what Lightning keeps, the state of torch's random numbers, of each process.

    Args:
        folder: where to.
        minutes: between two checkpoints within an epoch.
    """

    def __init__(self, folder: str, minutes: float = 10.0):
        self.file, self.minutes = Path(folder) / "last.ckpt", minutes
        self.saved = 0.0
        self.stop: int | None = None
        self.random: list[dict[str, Any]] = []  # a process each
        self.before: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """What the next random numbers depend on: those of dropout."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"processes": gathered({"cpu": torch.get_rng_state(), "cuda": cuda})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it until the training begins: what comes before draws numbers, too."""
        self.random = state_dict.get(
            "processes", [state_dict]
        )  # before there were several, there was the one

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Go on with the random numbers; listen for signals; end at once if early stopping had."""
        if trainer.global_rank < len(self.random):
            random = self.random[trainer.global_rank]
            torch.set_rng_state(random["cpu"].cpu())
            if random["cuda"] and len(random["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([state.cpu() for state in random["cuda"]])
        for early in trainer.early_stopping_callbacks:
            assert isinstance(early, EarlyStopping)
            trainer.should_stop |= early.wait_count >= early.patience
        self.saved = time.monotonic()
        self._listen(self._ask)

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Listen for signals here, too: nothing is to be saved, so the end is at once."""
        self._listen(self._end)

    def _listen(self, handler: Callable[[int, Any], None]) -> None:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, handler) for number in ASK}

    def _end(self, number: int, frame: Any) -> None:
        raise Stopped(number)

    def _ask(self, number: int, frame: Any) -> None:
        """Stop after this step; at a second Ctrl-C, at once."""
        if self.stop == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stop = self.stop or number

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save within an epoch, if it is time. The epoch's last step is left to its end, which is soon."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        if _any(
            trainer, self.stop is not None or time.monotonic() - self.saved >= 60 * self.minutes
        ):
            self._save(trainer, module)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Save what the epoch has come to."""
        self._save(trainer, module)

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not all(bool(weight.isfinite().all()) for weight in module.parameters()):
            raise FkpError(
                f"step {trainer.global_step} has made weights that are not finite; they were not kept"
            )
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:  # what led here must not be lost while this is kept
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()
            else:
                logger.save()
        trainer.save_checkpoint(self.file, weights_only=False)
        self.saved = time.monotonic()
        if _any(trainer, self.stop is not None):
            raise Stopped(self.stop or signal.SIGTERM)

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Leave signals as they were."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}


def _any(trainer: pl.Trainer, asked: bool) -> bool:
    """Whether one of several processes asks: what they do, they do together."""
    return (
        trainer.strategy.reduce_boolean_decision(asked, all=False)
        if trainer.world_size > 1
        else asked
    )


class Stopped(SystemExit):
    """A signal has asked for the end; a checkpoint has been written."""

    def __init__(self, number: int):
        super().__init__(128 + number)


@contextmanager
def readable_errors(last: Path) -> Iterator[None]:
    """What ends a training from outside is one message with the way on.

    Args:
        last: the checkpoint that a resumed run would go on from.

    Raises:
        FkpError: the disk is full, or a loader process has died.
    """
    try:
        yield
    except Stopped as stop:
        if is_rank_zero():
            print(f"stopped; {resume_hint(last)}", file=sys.stderr)
        raise SystemExit(stop.code) from None
    except (FkpError, OSError, EOFError, RuntimeError, MisconfigurationException) as error:
        if isinstance(
            error, (FkpError, MisconfigurationException)
        ) or "Early stopping conditioned" in str(error):
            what = str(error)
        elif isinstance(error, OSError) and error.errno in NO_ROOM:
            what = f"no room left on the disk ({error.filename or last.parent}); make some"
        elif "DataLoader worker" in str(error) or isinstance(error, (ConnectionError, EOFError)):
            what = f"a loader process died, as when memory runs out; datamodule.num_workers=0 does without ({error})"
        else:
            raise
        raise FkpError(f"{what}; {resume_hint(last)}" if is_rank_zero() else what) from error


def resume_hint(last: Path) -> str:
    """How a run that has been ended goes on from its last checkpoint, in words."""
    return (
        f"python train.py resume=true goes on from {last}"
        if last.is_file()
        else "no checkpoint had been written yet"
    )


def logging(run: Run) -> dict[str, Any]:
    """What its logger must know of a run that goes on: from which step on TensorBoard is to forget what it was told."""
    if not run.resumed:
        return {}
    return {"purge_step": read(run.checkpoint)["global_step"] if run.checkpoint else 0}
