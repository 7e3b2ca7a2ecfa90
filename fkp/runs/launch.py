"""Several processes that train together: the leader starts the others, and when one ends, all do."""

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

LEADER = "FKP_LEADER"  # the environment tells the others whom they follow: a process id
PR_SET_PDEATHSIG = 1  # of Linux's prctl
PAUSE = 0.5  # seconds between two looks at the others
GRACE = 5.0  # seconds for a process to find out by itself that another has ended, where it does
TOLD = 4000  # characters of what a process said before it failed


class WorkerProcess:
    """A process that this one has started; what it says is heard only if it fails.

    Args:
        number: among those of this machine.
        command: of the process.
        environment: of the process.
    """

    def __init__(self, number: int, command: list[str], environment: dict[str, str]):
        self.number, self.said = number, tempfile.TemporaryFile()  # noqa: SIM115
        out = subprocess.DEVNULL
        self.process = subprocess.Popen(
            command, env=environment, stdin=out, stdout=out, stderr=self.said
        )

    @property
    def code(self) -> int:
        """What it failed with; 0 while it has not."""
        return self.process.poll() or 0

    def told(self) -> str:
        """How it failed, in words: its own, if it had some."""
        who, code = f"process {self.number} of those that train together", self.code
        if code < 0:
            why = ", as when memory runs out" if code == -signal.SIGKILL else ""
            return f"{who} was ended by {signal.Signals(-code).name}{why}"
        self.said.seek(0)
        said = self.said.read().decode(errors="replace").strip()
        return f"{who} failed: {said.splitlines()[-1] if said and code == 2 else said[-TOLD:]}"


@contextmanager
def launch(trainer: pl.Trainer, run: Run) -> Iterator[None]:
    """Train and test in several processes, if the Trainer is to have them: start those of this machine, unless
    torchrun, SLURM or the like has done so, and end them in the end. Lightning would start them, too, but each with a
    log in the folder, and if one died it would kill the first without a word.

    Raises:
        FkpError: one of them has died.
    """
    if LEADER in os.environ:
        if sys.platform == "linux":  # the kernel does it at once, if this is not too late to ask
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        threading.Thread(target=_follow, args=(int(os.environ[LEADER]),), daemon=True).start()
    environment: Any = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None or environment.creates_processes_externally:
        yield
        return
    before = dict(os.environ)
    # Of these Lightning learns that it has not to start any.
    os.environ |= {
        "MASTER_ADDR": environment.main_address,
        "MASTER_PORT": str(environment.main_port),
    }
    os.environ |= {"NODE_RANK": str(environment.node_rank()), "LOCAL_RANK": "0"}
    command = [sys.executable, sys.argv[0], *sys.argv[1:], *run.joining]
    follow = {**os.environ, LEADER: str(os.getpid())}
    numbers = range(1, trainer.num_devices)
    others = [
        WorkerProcess(number, command, {**follow, "LOCAL_RANK": str(number)}) for number in numbers
    ]
    done = threading.Event()
    threading.Thread(target=_watch, args=(others, run, done), daemon=True).start()
    try:
        yield
        for other in others:
            other.process.wait(60)
    except FkpError:
        raise
    except Exception as error:
        time.sleep(
            PAUSE if others else 0
        )  # the connection is lost a little before the process is gone
        if failed := _first(others):
            raise FkpError(failed.told()) from error
        raise
    finally:
        done.set()
        _end(others)
        os.environ.clear()
        os.environ |= before


def _first(others: list[WorkerProcess]) -> WorkerProcess | None:
    """Of those that have failed the one to blame: killed, or with a message, and not for the loss of another."""
    failed = [other for other in others if other.code]
    return min(failed, key=lambda other: (other.code > 0, other.code != 2), default=None)


def _watch(others: list[WorkerProcess], run: Run, done: threading.Event) -> None:
    """End this process when another has, should it wait for that in vain: NCCL's would for half an hour."""
    while not done.wait(PAUSE):
        if (failed := _first(others)) and not done.wait(GRACE):
            print(f"{failed.told()}; {resume_hint(run.last)}", file=sys.stderr, flush=True)
            _end(others)
            os._exit(2)


def _follow(leader: int) -> None:
    """End this process when its leader has: it would wait for it, and its way out, too, takes seconds."""
    while os.getppid() == leader:
        time.sleep(PAUSE)
    os._exit(1)


def _end(others: list[WorkerProcess]) -> None:
    for other in others:
        other.process.kill()
        other.process.wait()
