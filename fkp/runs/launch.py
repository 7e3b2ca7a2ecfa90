"""Launch the worker processes of a distributed training, and end all when one ends.

Lightning's `_SubprocessScriptLauncher` could start them. But each of its workers prints and logs
on its own, and when one dies, its observer kills rank zero without a message, so that a run in two
processes would end in silence. It also offers no way to pass the run's folder to the workers.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fkp.errors import FkpError
from fkp.runs.provenance import Run
from fkp.runs.resume import resume_hint

if TYPE_CHECKING:
    import pytorch_lightning as pl

PARENT = "FKP_PARENT"  # environment variable: the process id of a worker's parent
PR_SET_PDEATHSIG = 1  # of Linux's prctl
PAUSE = 0.5  # seconds between two checks of the processes
GRACE = 5.0  # seconds in which a process may notice by itself that another has ended
SHOWN = 4000  # characters of a failed process's errors that are shown
MISTAKE = 2  # exit code of a process that ended with one message for the user


class WorkerProcess:
    """A worker process; its errors are kept and shown only if it fails.

    Args:
        number: its local rank.
        command: of the process.
        environment: of the process.
    """

    def __init__(self, number: int, command: list[str], environment: dict[str, str]):
        self.number = number
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.stderr,
        )

    @property
    def code(self) -> int:
        """Its exit code if it has failed, else 0."""
        return self.process.poll() or 0

    def error(self) -> str:
        """Say how it failed, in its own words if it printed any."""
        if self.code < 0:
            reason = ", possibly for lack of memory" if self.code == -signal.SIGKILL else ""
            name = signal.Signals(-self.code).name
            return f"worker process {self.number} was ended by {name}{reason}"

        self.stderr.seek(0)
        text = self.stderr.read().decode(errors="replace").strip()
        if text and self.code == MISTAKE:
            text = text.splitlines()[-1]
        return f"worker process {self.number} failed: {text[-SHOWN:]}"


@contextmanager
def launch(trainer: pl.Trainer, run: Run) -> Iterator[None]:
    """Start the workers of this node if the Trainer wants several processes, and end them.

    Where torchrun, SLURM or the like has started the processes, only the body runs.

    Args:
        trainer: whose strategy says how many processes there are.
        run: that they train.

    Raises:
        FkpError: a worker has died.
    """
    if PARENT in os.environ:
        _end_with_parent(int(os.environ[PARENT]))

    environment: Any = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None or environment.creates_processes_externally:
        yield
        return

    before = dict(os.environ)
    _announce(environment)
    workers = _start(trainer.num_devices, run)
    done = threading.Event()
    threading.Thread(target=_watch, args=(workers, run, done), daemon=True).start()
    try:
        yield
        for worker in workers:
            worker.process.wait(60)
    except FkpError:
        raise
    except Exception as error:
        # The connection is lost a little before the process is gone.
        time.sleep(PAUSE if workers else 0)
        if failed := _first_failed(workers):
            raise FkpError(failed.error()) from error
        raise
    finally:
        done.set()
        _kill(workers)
        os.environ.clear()
        os.environ |= before


def _announce(environment: Any) -> None:
    """Set the variables by which Lightning knows that the processes are already there."""
    os.environ |= {
        "MASTER_ADDR": environment.main_address,
        "MASTER_PORT": str(environment.main_port),
        "NODE_RANK": str(environment.node_rank()),
        "LOCAL_RANK": "0",
    }


def _start(count: int, run: Run) -> list[WorkerProcess]:
    """Start the workers with local ranks 1 to count - 1."""
    command = [sys.executable, *sys.argv, *run.worker_overrides]
    environment = {**os.environ, PARENT: str(os.getpid())}
    return [
        WorkerProcess(number, command, {**environment, "LOCAL_RANK": str(number)})
        for number in range(1, count)
    ]


def _first_failed(workers: list[WorkerProcess]) -> WorkerProcess | None:
    """Find the failed worker to blame: the one killed or with a message, if there is one.

    The others may have failed only because they lost the connection.
    """
    failed = [worker for worker in workers if worker.code]
    return min(failed, key=lambda worker: (worker.code > 0, worker.code != MISTAKE), default=None)


def _watch(workers: list[WorkerProcess], run: Run, done: threading.Event) -> None:
    """End this process when a worker has failed and this one does not notice.

    NCCL would wait for the lost worker for half an hour.
    """
    while not done.wait(PAUSE):
        if (failed := _first_failed(workers)) and not done.wait(GRACE):
            print(f"{failed.error()}; {resume_hint(run.last)}", file=sys.stderr, flush=True)
            _kill(workers)
            os._exit(MISTAKE)


def _end_with_parent(parent: int) -> None:
    """End this process as soon as its parent has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    # The thread is for other systems, and for a parent that ended before prctl was called.
    threading.Thread(target=_poll_parent, args=(parent,), daemon=True).start()


def _poll_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PAUSE)
    os._exit(1)


def _kill(workers: list[WorkerProcess]) -> None:
    for worker in workers:
        worker.process.kill()
        worker.process.wait()
