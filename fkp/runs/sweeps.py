"""Many runs from one command: each a process of its own, in a folder that its overrides name, so that the same command
again finds what is done and goes on with the rest."""

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
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from fkp.errors import FkpError
from fkp.runs import provenance

FOLDER = Path("outputs/sweeps")
FIGURES = "metrics.json"
OUTPUT = "output.txt"  # what a job has printed
RECORD = "job.json"  # what became of it so far
EXPECTED = "sweep.json"  # in a sweep's folder: which keys vary, and its jobs
VALUE = "val/best_nme"  # of a job, for sweepers to minimise
LONGEST = 80  # letters of a folder's name, but for its hash


def arguments(given: Sequence[str]) -> list[str]:
    """The command line of `train.py`. A sweep is given the folder that its overrides name, if it is told none; for
    what becomes of a single run's see `fkp.runs.provenance.arguments`.

    Raises:
        FkpError: a sweep is told to resume a run; or no such run.
    """
    if not {"-m", "--multirun"} & set(given):
        return provenance.arguments(given)
    if not provenance.is_rank_zero():
        raise FkpError(
            "-m: one process walks through a sweep, whose jobs may have several; start it without torchrun or srun"
        )
    if asked := [one for one in given if provenance.key(one) in ("resume", "repeat", "run_dir")]:
        raise FkpError(
            f"{asked[0]}: not for a sweep; the same command again goes on with what is not finished"
        )
    told = [
        one
        for one in given
        if one not in ("-m", "--multirun") and not provenance.key(one).startswith("hydra")
    ]
    if any(provenance.key(one) == "hydra.sweep.dir" for one in given):
        return list(given)
    folder = f"hydra.sweep.dir={(FOLDER / name(told, _swept(told), values=False)).as_posix()}"
    # Beside other overrides: Hydra does not find those of two places, as before and after --cfg.
    place = next(
        (i for i, one in enumerate(given) if "=" in one and not one.startswith("-")), len(given)
    )
    return [*given[:place], folder, *given[place:]]


def _swept(told: Sequence[str]) -> list[str]:
    """The keys that are given several values."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(
            [one for one in told if not one.startswith("-")]
        )
    except HydraException:  # Hydra will say so itself
        return []
    return [one.get_key_element().lstrip("+") for one in parsed if one.is_sweep_override()]


def name(overrides: Sequence[str], shown: Collection[str], values: bool = True) -> str:
    """A folder's name that is a function of overrides, in whatever order.

    Args:
        overrides: all of them.
        shown: the keys that can be read in it.
        values: with their values.

    >>> name(["seed=1", "model.optimizer.lr=0.1"], ["model.optimizer.lr", "seed"])
    'seed-1_lr-0.1_a27e13'
    """
    parts = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key.lstrip("+~") in shown:
            last = key.rpartition(".")[2].lstrip("+~")
            parts.append(f"{last}-{value}" if values else last)
    told = "\0".join(sorted(overrides))
    readable = re.sub(r"[^\w.+-]+", "-", "_".join(parts) or "sweep")[:LONGEST]
    return f"{readable}_{hashlib.sha256(told.encode()).hexdigest()[:6]}"


def expect(folder: Path, swept: Sequence[str], jobs: Sequence[Sequence[str]]) -> None:
    """Note in a sweep's folder which jobs there are to be, besides those already noted.

    Args:
        swept: the keys in which they differ.
        jobs: their overrides.
    """
    file = folder / EXPECTED
    folder.mkdir(parents=True, exist_ok=True)
    known = (
        json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"swept": [], "jobs": {}}
    )
    known["swept"] = list(dict.fromkeys([*known["swept"], *swept]))
    known["jobs"] |= {name(job, swept): list(job) for job in jobs}
    draft = file.with_name(f".{EXPECTED}.part")
    draft.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    draft.replace(file)


def result(folder: Path) -> float | None:
    """A finished job's figure; None of any other."""
    try:
        return float(json.loads((folder / FIGURES).read_text(encoding="utf-8"))[VALUE])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def job(script: Path) -> float:
    """Do what Hydra has composed as a run of its own: begin it, go on with it, or find it done.

    A process of its own takes nothing else with it when it is killed or runs out of memory, and may itself start the
    processes that train together.

    Args:
        script: that trains.

    Returns:
        the run's figure; NaN if it failed: its folder says why, and other jobs go on.
    """
    from hydra.core.hydra_config import HydraConfig

    run = HydraConfig.get()
    folder = Path(run.runtime.output_dir)
    value = result(folder)
    if value is not None:
        return value
    command = [sys.executable, str(script)]
    for source in run.runtime.config_sources:
        if source.provider == "command-line":
            command += ["--config-dir", source.path]
    if (folder / provenance.FILE).exists():
        command += [f"resume={folder}"]
    else:
        command += [*run.overrides.task, f"run_dir={folder}", f"hydra.run.dir={folder}"]
    with _record(folder) as record:
        record["code"] = _ended(command, folder, _threads(run.launcher))
        if record["code"]:
            record["error"] = _last_line(folder / OUTPUT)
            print(f"{folder.name}: {record['error']}", file=sys.stderr)
    value = result(folder)
    if value is None:
        return math.nan
    print(f"{folder.name}: {value:.2f}")
    return value


@contextlib.contextmanager
def _record(folder: Path) -> Iterator[dict[str, Any]]:
    """What is noted of an attempt, besides its time; one of several processes does so."""
    began, record = time.monotonic(), {"code": None, "error": ""}
    before = recorded(folder)
    try:
        yield record
    finally:
        if provenance.is_rank_zero():
            record["seconds"] = round(before.get("seconds", 0) + time.monotonic() - began, 1)
            record["attempts"] = before.get("attempts", 0) + 1
            (folder / RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")


def recorded(folder: Path) -> dict[str, Any]:
    """What is noted of a job's attempts: code, error, seconds and attempts; empty of one that has had none."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return record if isinstance(record, dict) else {}
    except (OSError, ValueError):
        return {}


def _ended(command: Sequence[str], folder: Path, environment: dict[str, str]) -> int:
    """The exit code of a process; what asks this one to stop asks that one, and is answered when it has ended."""
    asked: list[int] = []
    output = folder / (
        OUTPUT if provenance.is_rank_zero() else f"output.{os.environ.get('SLURM_PROCID', '1')}.txt"
    )
    with output.open("ab") as printed:
        process = subprocess.Popen(
            command,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # or else Ctrl-C would ask it twice
            preexec_fn=_outlive_nobody if sys.platform == "linux" else None,
        )

        def ask(number: int, _: Any) -> None:
            asked.append(number)
            process.send_signal(number)

        numbers = [
            getattr(signal, name)
            for name in ("SIGINT", "SIGTERM", "SIGUSR2")
            if hasattr(signal, name)
        ]
        alone = threading.current_thread() is not threading.main_thread()
        before = {} if alone else {number: signal.signal(number, ask) for number in numbers}
        try:
            code = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if asked:
        for number in dict.fromkeys(asked):
            handler = before[signal.Signals(number)]
            if callable(handler):  # such as a cluster's, that will have this job begun again
                handler(number, None)
        raise SystemExit(128 + asked[0])
    return code


def _outlive_nobody() -> None:
    """Linux: be asked to stop when the parent dies."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _threads(launcher: Any) -> dict[str, str]:
    """The environment of a job: jobs at the same time share the processor's cores."""
    if "n_jobs" not in launcher or "OMP_NUM_THREADS" in os.environ:
        return dict(os.environ)
    from joblib import cpu_count, effective_n_jobs

    return {
        **os.environ,
        "OMP_NUM_THREADS": str(max(1, cpu_count() // effective_n_jobs(launcher.n_jobs))),
    }


def _last_line(output: Path) -> str:
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
