"""Run the jobs of a sweep, each in a process and a folder of its own.

The folders are named by the overrides, so the same command again finds the finished jobs and
resumes the others.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fkp.errors import FkpError
from fkp.files.writing import write_whole
from fkp.runs import provenance
from fkp.runs.overrides import key

FOLDER = Path("outputs/sweeps")
METRICS = "metrics.json"  # of a finished job
OUTPUT = "output.txt"  # what a job has printed
ATTEMPTS = "job.json"  # the result of a job's attempts
JOBS = "sweep.json"  # in a sweep's folder: its jobs, and the keys in which they differ
VALUE = "val/best_nme"  # the metric that sweepers minimise
TRAINED_ON = "val/trained_on"  # 1 in metrics.json if it is of faces that are trained on, too
LONGEST = 80  # characters of a folder's name, without its hash
LAST_BYTES = 4096  # of a job's output, in which its last line is looked for
PR_SET_PDEATHSIG = 1  # of Linux's prctl

Handlers = dict[signal.Signals, Any]


def arguments(given: Sequence[str]) -> list[str]:
    """Complete the command line of `train.py`.

    A sweep gets the folder that its overrides name, unless it has `hydra.sweep.dir`. For a single
    run see `fkp.runs.provenance.arguments`.

    Raises:
        FkpError: a sweep that resumes a run, or is started several times; or no such run.
    """
    if not {"-m", "--multirun"} & set(given):
        return provenance.arguments(given)
    if not provenance.is_rank_zero():
        raise FkpError(
            "-m: a sweep is one process that starts those of its jobs; "
            "start it without torchrun or srun"
        )
    for override in given:
        single = key(override) in ("resume", "repeat", "run_dir")
        if single or override.lstrip("+") == "start.mode=repeat":
            raise FkpError(
                f"{override}: not for a sweep; the same command again resumes unfinished jobs"
            )
    if any(key(override) == "hydra.sweep.dir" for override in given):
        return list(given)

    # The folder depends on the overrides of the jobs only.
    overrides = [
        one for one in given if one not in ("-m", "--multirun") and not key(one).startswith("hydra")
    ]
    folder = FOLDER / folder_name(overrides, _swept_keys(overrides), values=False)

    # Insert it beside other overrides: Hydra reads those of one side of its options only.
    is_override = ["=" in one and not one.startswith("-") for one in given]
    place = is_override.index(True) if any(is_override) else len(given)
    return [*given[:place], f"hydra.sweep.dir={folder.as_posix()}", *given[place:]]


def _swept_keys(overrides: Sequence[str]) -> list[str]:
    """Return the keys that have several values."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(
            [one for one in overrides if not one.startswith("-")]
        )
    except HydraException:  # Hydra reports it later
        return []
    return [one.get_key_element().lstrip("+") for one in parsed if one.is_sweep_override()]


def folder_name(overrides: Sequence[str], shown: Collection[str], values: bool = True) -> str:
    """Name a folder by overrides, regardless of their order.

    Args:
        overrides: all that the name depends on.
        shown: the keys that the name shows; the others only enter its hash.
        values: show the values, too.

    >>> folder_name(["seed=1", "model.optimizer.lr=0.1"], ["model.optimizer.lr", "seed"])
    'seed-1_lr-0.1_a27e13'
    """
    words = []
    for override in overrides:
        name, value = key(override), override.partition("=")[2]
        if name in shown:
            last = name.rpartition(".")[2]
            words.append(f"{last}-{value}" if values else last)
    readable = re.sub(r"[^\w.+-]+", "-", "_".join(words) or "sweep")[:LONGEST]
    digest = hashlib.sha256("\0".join(sorted(overrides)).encode()).hexdigest()
    return f"{readable}_{digest[:6]}"


def add_jobs(folder: Path, swept: Sequence[str], jobs: Sequence[Sequence[str]]) -> None:
    """Add jobs to the list in a sweep's folder.

    Args:
        folder: of the sweep; created if missing.
        swept: the keys in which the jobs differ.
        jobs: the overrides of each.
    """
    write_jobs(folder, swept, {folder_name(job, swept): list(job) for job in jobs})


def write_jobs(folder: Path, swept: Sequence[str], jobs: Mapping[str, list[str]]) -> None:
    """Add jobs, by the names of their folders, to the list in a sweep's folder."""
    file = folder / JOBS
    folder.mkdir(parents=True, exist_ok=True)
    known = json.loads(file.read_text("utf-8")) if file.exists() else {"swept": [], "jobs": {}}
    known["swept"] = list(dict.fromkeys([*known["swept"], *swept]))
    known["jobs"] |= jobs
    write_whole(file, json.dumps(known, indent=1) + "\n")


def validation_nme(folder: Path) -> float | None:
    """Read the best validation NME of a finished job; None of any other."""
    try:
        return float(json.loads((folder / METRICS).read_text(encoding="utf-8"))[VALUE])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def job(script: Path) -> float:
    """Start, resume or skip the job that Hydra has composed.

    The job is a process of its own: if it is killed or runs out of memory, the sweep goes on. It
    may itself start the worker processes of a distributed training.

    Args:
        script: that trains.

    Returns:
        the validation NME; NaN if the job failed, for which its folder holds the reason.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if (finished := validation_nme(folder)) is not None:
        return finished

    with _recorded_attempt(folder) as attempt:
        command = _command(script, hydra, folder)
        attempt["code"] = _run_process(command, folder, _environment(hydra.launcher))
        if attempt["code"]:
            attempt["error"] = _last_line(folder / OUTPUT)
            print(f"{folder.name}: {attempt['error']}", file=sys.stderr)

    if (value := validation_nme(folder)) is None:
        return math.nan
    print(f"{folder.name}: {value:.2f}")
    return value


def _command(script: Path, hydra: Any, folder: Path) -> list[str]:
    """Return the command line that starts or resumes a job in its folder."""
    command = [sys.executable, str(script)]
    for source in hydra.runtime.config_sources:
        if source.provider == "command-line":
            command += ["--config-dir", source.path]
    if (folder / provenance.FILE).exists():
        return [*command, f"resume={folder}"]
    return [*command, *hydra.overrides.task, f"run_dir={folder}", f"hydra.run.dir={folder}"]


@contextlib.contextmanager
def _recorded_attempt(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the record of an attempt, to be filled in; write it with the attempt's time."""
    attempt: dict[str, Any] = {"code": None, "error": ""}
    start, before = time.monotonic(), read_attempts(folder)
    try:
        yield attempt
    finally:
        if provenance.is_rank_zero():
            attempt["seconds"] = round(before.get("seconds", 0) + time.monotonic() - start, 1)
            attempt["attempts"] = before.get("attempts", 0) + 1
            write_whole(folder / ATTEMPTS, json.dumps(attempt) + "\n")


def read_attempts(folder: Path) -> dict[str, Any]:
    """Read code, error, seconds and attempts of a job; empty before its first attempt."""
    try:
        record = json.loads((folder / ATTEMPTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _run_process(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> int:
    """Run a job's process and return its exit code.

    A stop signal is passed on to the process. When it has ended, the previous handler is called:
    a cluster's, for example, queues the job again.

    Raises:
        SystemExit: a stop signal was received.
    """
    received: list[int] = []
    rank = os.environ.get("SLURM_PROCID", "1")
    output = folder / (OUTPUT if provenance.is_rank_zero() else f"output.{rank}.txt")
    with output.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            # In the terminal's session, Ctrl-C would reach the process a second time.
            start_new_session=True,
            preexec_fn=_stop_with_parent if sys.platform == "linux" else None,
        )

        def pass_on(number: int, _: Any) -> None:
            received.append(number)
            process.send_signal(number)

        with _handled_signals(pass_on) as previous:
            code = process.wait()

    for number in dict.fromkeys(received):
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, None)
    if received:
        raise SystemExit(128 + received[0])
    return code


@contextlib.contextmanager
def _handled_signals(handler: Any) -> Iterator[Handlers]:
    """Handle stop signals for a while; yield the previous handlers."""
    numbers = [
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name)
    ]
    # Only the main thread may set handlers.
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield previous
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _stop_with_parent() -> None:
    """Let Linux send SIGTERM to this process when its parent has died."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _environment(launcher: Any) -> dict[str, str]:
    """Return the environment of a job; simultaneous jobs share the processor's cores."""
    environment = dict(os.environ)
    threads = _threads(launcher)
    if threads and "OMP_NUM_THREADS" not in environment:
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment


def threads_of_job() -> int | None:
    """Return the cores that each of the jobs that run at the same time has; None for all."""
    from hydra.core.hydra_config import HydraConfig

    return _threads(HydraConfig.get().launcher)


def _threads(launcher: Any) -> int | None:
    if not launcher or "n_jobs" not in launcher:
        return None
    from joblib import cpu_count, effective_n_jobs

    return max(1, cpu_count() // effective_n_jobs(launcher.n_jobs))


def _last_line(output: Path) -> str:
    """Return the last line that a job has printed: its error."""
    return last_output(output).split("\n")[-1].strip()


def last_output(output: Path) -> str:
    """Return the end of what a job has printed."""
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - LAST_BYTES))
        return file.read().decode(errors="replace").strip()
