"""Stop and resume a training; on a CPU, the resumed run equals an uninterrupted one bit for bit.

Lightning's own parts do not keep this promise, so these replace them:

- `TorchCheckpointIO` writes its temporary file in the system's temporary folder and moves it,
  which copies across file systems, and it does not wait for the disk.
- `ModelCheckpoint(train_time_interval=…)` saves after an epoch's last batch, before its
  validation, and stores no state of the random number generators.
- `save_on_exception` may save in the middle of a step.
- The SIGTERM handler calls a collective operation, which hangs unless every process is signalled.
"""

from __future__ import annotations

import errno
import io
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from fkp.files.writing import write_whole
from fkp.module import gathered
from fkp.runs.provenance import Run, is_rank_zero

# Signals that ask a run to stop: Ctrl-C, a shutdown, and a cluster that reclaims its node (USR1 or
# USR2). Lightning would answer USR1 with a checkpoint that every later run in the same working
# folder resumes from.
STOP_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
]
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically, and load them as plain data.

    A killed process or a full disk leaves the previous checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            FkpError: the disk is full, or the folder cannot be written.
        """
        path = Path(path)

        # In memory first: a full disk then raises an OSError here, not an assertion in torch.
        data = io.BytesIO()
        torch.save(checkpoint, data)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data.getvalue(), durable=True)
        except OSError as error:
            kept = "the previous one is kept" if path.exists() else "there is no previous one"
            raise FkpError(
                f"{path}: the checkpoint cannot be written ({error.strerror}); {kept}"
            ) from error

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Load a checkpoint of tensors and plain values.

        Raises:
            FkpError: the file is damaged, or holds anything else.
        """
        return read(Path(path))


class Stopped(SystemExit):
    """Exit after a stop signal; the checkpoint has been written."""

    def __init__(self, number: int):
        super().__init__(128 + number)


class LastCheckpoint(Checkpoint):
    """Save last.ckpt with each validation, every few minutes without one, and on a stop signal.

    The checkpoint also holds the state of torch's random number generators in each process.

    Args:
        folder: of last.ckpt.
        minutes: between two checkpoints without a validation.
    """

    def __init__(self, folder: str, minutes: float = 10.0):
        self.file, self.minutes = Path(folder) / "last.ckpt", minutes
        self.saved_at = 0.0
        self.stop: int | None = None  # the first stop signal that was received
        self.random_states: list[dict[str, Any]] = []  # one per process
        self.previous_handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Collect the random states of all processes: dropout depends on them."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"processes": gathered({"cpu": torch.get_rng_state(), "cuda": cuda})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the random states until training starts: Lightning draws numbers before it."""
        # Checkpoints of before distributed training hold the state of their one process itself.
        self.random_states = state_dict.get("processes", [state_dict])

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Restore random states and listen for signals; end at once if early stopping had."""
        if trainer.global_rank < len(self.random_states):
            state = self.random_states[trainer.global_rank]
            torch.set_rng_state(state["cpu"].cpu())
            if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])

        for callback in trainer.early_stopping_callbacks:
            assert isinstance(callback, EarlyStopping)
            trainer.should_stop |= callback.wait_count >= callback.patience

        self.saved_at = time.monotonic()
        self._listen(self._request_stop)

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Listen for signals, too: a test has nothing to save and ends at once."""
        self._listen(self._exit)

    def _listen(self, handler: Callable[[int, Any], None]) -> None:
        # Only the main thread may set handlers.
        if threading.current_thread() is threading.main_thread():
            self.previous_handlers = {
                number: signal.signal(number, handler) for number in STOP_SIGNALS
            }

    def _exit(self, number: int, frame: Any) -> None:
        raise Stopped(number)

    def _request_stop(self, number: int, frame: Any) -> None:
        """Stop after the current step; at a second Ctrl-C, at once."""
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
        """Save within an epoch when a checkpoint is due or a stop was requested."""
        # The end of the epoch follows soon, and saves after validation.
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        due = time.monotonic() - self.saved_at >= 60 * self.minutes
        if _any_process(trainer, due or self.stop is not None):
            self._save(trainer, module)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Save at the end of the epoch; of short epochs, of those with a validation."""
        epoch, every = trainer.current_epoch + 1, trainer.check_val_every_n_epoch or 1
        due = epoch % every == 0 or epoch == trainer.max_epochs or trainer.should_stop
        due = due or time.monotonic() - self.saved_at >= 60 * self.minutes
        if _any_process(trainer, due or self.stop is not None):
            self._save(trainer, module)

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not all(bool(weight.isfinite().all()) for weight in module.parameters()):
            raise FkpError(
                f"step {trainer.global_step}: the weights are no longer finite, and were not saved;"
                " lower model.optimizer.lr"
            )
        if getattr(trainer, "fast_dev_run", False):
            return

        # Flush the loggers first: the curves must reach at least as far as the checkpoint.
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()
            else:
                logger.save()
        trainer.save_checkpoint(self.file, weights_only=False)
        self.saved_at = time.monotonic()

        if _any_process(trainer, self.stop is not None):
            raise Stopped(self.stop or signal.SIGTERM)

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)
        self.previous_handlers = {}


def _any_process(trainer: pl.Trainer, decision: bool) -> bool:
    """Return whether any process decided so: all save and stop together."""
    return trainer.strategy.reduce_boolean_decision(decision, all=False)


@contextmanager
def readable_errors(last: Path) -> Iterator[None]:
    """Turn what ends a training from outside into one message that says how to resume.

    Args:
        last: the checkpoint that a resumed run would start from.

    Raises:
        FkpError: the disk is full, a data loader process has died, or the training failed for a
            reason that a user can mend.
    """
    try:
        yield
    except Stopped as stop:
        if is_rank_zero():
            print(f"stopped; {resume_hint(last)}", file=sys.stderr)
        raise SystemExit(stop.code) from None
    except (FkpError, OSError, EOFError, RuntimeError, MisconfigurationException) as error:
        reason = _reason(error, last.parent)
        if reason is None:
            raise
        raise FkpError(f"{reason}; {resume_hint(last)}" if is_rank_zero() else reason) from error


def _reason(error: Exception, folder: Path) -> str | None:
    """Explain an error that has its cause outside the program; None for any other."""
    text = str(error)
    if isinstance(error, (FkpError, MisconfigurationException)):
        return text
    if "Early stopping conditioned" in text:
        return text
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return f"{error.filename or folder}: the disk is full; free some space"
    if "DataLoader worker" in text or isinstance(error, (ConnectionError, EOFError)):
        return (
            "a data loader process died, possibly for lack of memory; "
            f"try datamodule.num_workers=0 ({text})"
        )
    return None


def resume_hint(last: Path) -> str:
    """Say how to resume a run from its last checkpoint."""
    if last.is_file():
        return f"python train.py resume=true continues from {last}"
    return "no checkpoint has been written yet"


def logging(run: Run) -> dict[str, Any]:
    """Return the TensorBoard logger's arguments for a run.

    A resumed run purges what was logged after its checkpoint.
    """
    if not run.resumed:
        return {}
    return {"purge_step": read(run.checkpoint)["global_step"] if run.checkpoint else 0}
