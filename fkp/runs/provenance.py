"""Record what a run is made of, and compare the record when the run is resumed or repeated."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fkp.errors import FkpError
from fkp.files.writing import write_whole
from fkp.runs import start
from fkp.runs.overrides import key, leaves, text
from fkp.runs.start import Start

if TYPE_CHECKING:
    from filelock import FileLock

OUTPUTS = Path("outputs")
# Files of a run, in its folder.
FILE = "run.yaml"
CHECKPOINT = "checkpoints/best.ckpt"
LAST = "checkpoints/last.ckpt"
LOCK = ".run.lock"
# Seconds to wait for the lock: a report holds it for a moment, and a job whose driver was killed is
# about to stop.
PATIENCE = 10.0
# Keys that say how a run is started, not what it is.
ASKING = ("start", "allow_changes", "run_dir")
# Processes other than rank zero: Hydra writes no files for them.
QUIET = ("hydra.output_subdir=null", "hydra/job_logging=disabled")
PACKAGES = (
    "fkp",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "torchmetrics",
    "hydra-core",
    "numpy",
    "opencv-python",
)
SHOWN = 20  # differences that an error lists


def arguments(given: Sequence[str], outputs: Path = OUTPUTS) -> list[str]:
    """Complete the command line of a run that is resumed or repeated.

    Args:
        given: overrides, among them `start.from`, `start.mode` or `resume`.
        outputs: the folder of all runs.

    Returns:
        the overrides that the run was begun with, then those given now; the given ones alone if
        the run is a new one.

    Raises:
        FkpError: no such run.
    """
    completed = _of_run(given, outputs)
    if is_rank_zero():
        return completed

    # Rank zero has made the folder. If none is given, it is named by the clock, and clocks differ.
    folders = {key(one): text(one) for one in completed}
    folder = folders.get("run_dir", folders.get("hydra.run.dir", str(outputs)))
    return [*completed, f"hydra.run.dir={folder}", *QUIET]


def _of_run(given: Sequence[str], outputs: Path) -> list[str]:
    begin, given = start.read(given), [one for one in given if key(one) != start.SHORT]
    if begin.weights == "last":
        return [*given, f"start.from={last_checkpoint(outputs).resolve()}"]
    if begin.run is None:
        return list(given)

    # The overrides of the run, except those given now.
    folder = _newest(outputs) if begin.run == "last" else Path(begin.run)
    given = [one for one in given if key(one) not in start.KEYS]
    keys = {key(one) for one in given}
    command = [one for one in map(str, _read(folder)["command"]) if key(one) not in keys]

    # A resumed run stays in its folder.
    names = ["start.from", *(["run_dir", "hydra.run.dir"] if begin.mode == "resume" else [])]
    command += [f"{name}={folder.resolve()}" for name in names]
    return [*command, f"start.mode={begin.mode}", *given]


def _newest(outputs: Path) -> Path:
    found = sorted(outputs.rglob(FILE), key=lambda file: file.stat().st_mtime)
    if not found:
        raise FkpError(
            f"resume=true: no run in {outputs.resolve()}; "
            "start one, or name the folder of one by resume=…"
        )
    return found[-1].parent


def _read(folder: Path) -> dict[str, Any]:
    """Read the record of a run.

    Raises:
        FkpError: the folder holds no run, or its record is damaged.
    """
    try:
        record = yaml.safe_load((folder / FILE).read_text(encoding="utf-8"))
        if not isinstance(record["command"], list) or not isinstance(record["config"], dict):
            raise TypeError
        return dict(record)
    except FileNotFoundError:
        raise FkpError(f"{folder}: not the folder of a run (it has no {FILE})") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError):
        raise FkpError(f"{folder / FILE}: cannot be read as the record of a run") from None


def last_checkpoint(outputs: Path = OUTPUTS) -> Path:
    """Find the best checkpoint of the newest run.

    Args:
        outputs: the folder of all runs.

    Raises:
        FkpError: it holds no checkpoint.
    """
    made = sorted(outputs.rglob(CHECKPOINT), key=lambda path: path.stat().st_mtime)
    if not made:
        raise FkpError(
            f"no trained model in {outputs.resolve()}; "
            "train one with `python train.py`, or give ckpt=…"
        )
    return made[-1]


@dataclass
class Run:
    """A new or resumed run; it holds the lock of its folder.

    Args:
        folder: of the run's files.
        record: what the run is made of, as written to run.yaml.
        lock: of the folder; None in processes other than rank zero.
        previous: the record of the run that is resumed or repeated, if any.
        allow_changes: accept differences from the previous record.
        initial_checkpoint: the checkpoint that the run starts from, if it resumes no run.
    """

    folder: Path
    record: dict[str, Any]
    lock: FileLock | None
    previous: dict[str, Any] | None
    allow_changes: bool
    initial_checkpoint: str | None

    @property
    def resumed(self) -> bool:
        """Whether the run continues in a folder where it has been before."""
        return "resumed" in self.record

    @property
    def last(self) -> Path:
        """The checkpoint that a resumed run starts from."""
        return self.folder / LAST

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint to start from: the run's own last one, that of `start.from`, or None."""
        if self.resumed and self.last.is_file():
            return self.last
        return Path(self.initial_checkpoint) if self.initial_checkpoint else None

    @property
    def worker_overrides(self) -> list[str]:
        """The overrides that a worker process needs after those of rank zero."""
        folder = self.folder.resolve()
        return [f"run_dir={folder}", *([f"resume={folder}"] if self.resumed else [])]

    def made_of(self, data: str) -> None:
        """Write the record, now that the fingerprint of the data is known.

        Raises:
            FkpError: data or configuration differ from the run that is resumed or repeated.
        """
        if not is_rank_zero():
            return
        self.record["data"] = data

        # Compare with the previous record.
        differences = list(_differences(self.previous, self.record)) if self.previous else []
        if differences and not self.allow_changes:
            more = [f"… and {len(differences) - SHOWN} more"] if len(differences) > SHOWN else []
            listed = "\n  ".join([*differences[:SHOWN], *more])
            raise FkpError(
                f"{self.folder}: the run was made of something else:\n  {listed}\n"
                "allow_changes=true accepts the differences"
            )

        text = yaml.safe_dump(self.record, sort_keys=False, allow_unicode=True)
        write_whole(self.folder / FILE, text)


def begin(folder: Path, config: dict[str, Any], command: Sequence[str]) -> Run:
    """Begin a run in its folder, or resume it.

    Any rank but zero only reads what the run starts from.

    Args:
        folder: of the run; made if it does not exist.
        config: the resolved configuration, with `start` and `allow_changes`.
        command: the overrides that it was composed by.

    Raises:
        FkpError: no such run or checkpoint to start from; the folder holds another run, or one
            that is training; or the run is finished and nothing has changed.
    """
    begin = Start.of(config["start"])
    resuming = begin.run is not None and begin.mode == "resume"
    if resuming and Path(str(begin.run)).resolve() != folder.resolve():
        raise FkpError(f"run_dir={folder}: {begin.run} is resumed in its own folder; omit run_dir")
    if begin.checkpoint and not Path(begin.checkpoint).is_file():
        raise FkpError(f"start.from={begin.checkpoint}: no such checkpoint")

    # What the resumed or repeated run itself started from.
    known = _read(Path(begin.run)) if begin.run else None
    own = Start.of(known["start"]) if known and "start" in known else begin
    own = Start() if own.run else own
    record: dict[str, Any] = {"start": own.as_dict()} | ({"resumed": []} if resuming else {})
    if not is_rank_zero():
        return Run(folder, record, None, None, False, own.checkpoint)

    lock = _locked(folder, resuming, config["allow_changes"])
    record = {
        "command": [one for one in command if key(one).partition(".")[0] not in ASKING],
        "started": _now(),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **dict(_versions())},
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "config": _anywhere(config, str(folder)),
    } | record
    if resuming and known:
        record["started"] = known.get("started")
        record["resumed"] = [*known.get("resumed", []), _now()]
    return Run(folder, record, lock, known, bool(config["allow_changes"]), own.checkpoint)


def _locked(folder: Path, resuming: bool, allow_changes: bool) -> FileLock:
    """Make the folder of a run and lock it.

    Raises:
        FkpError: another process trains in it, it holds another run, or the run is finished.
    """
    from filelock import FileLock, Timeout  # here: predictions do not wait for it

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        raise FkpError(f"{folder}: another process trains here") from None

    if not (folder / FILE).exists():
        return lock
    if not resuming:
        raise FkpError(
            f"{folder}: holds a run; resume={folder} continues it, or name another run_dir"
        )
    if (folder / "metrics.json").exists() and not allow_changes:
        raise FkpError(
            f"{folder}: is finished; trainer.max_epochs=… allow_changes=true trains it further"
        )
    return lock


def is_rank_zero() -> bool:
    """Return whether this process has rank zero of all that train together: it alone writes.

    torchrun sets RANK, and then the variables of a SLURM job around it say nothing. SLURM itself
    sets SLURM_PROCID. `fkp.runs.launch` sets LOCAL_RANK, once on each node.
    """
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    return all(
        os.environ.get(name, "0") == "0"
        for name in ("SLURM_PROCID", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK")
    )


def _anywhere(value: Any, folder: str) -> Any:
    """Remove from a configuration how and where it runs, so that it can be compared."""
    if isinstance(value, dict):
        return {key: _anywhere(item, folder) for key, item in value.items() if key not in ASKING}
    if isinstance(value, list):
        return [_anywhere(item, folder) for item in value]
    return value.replace(folder, "${run_dir}") if isinstance(value, str) else value


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """List how configuration and data differ, one line per key."""
    old, new = dict(leaves(before["config"])), dict(leaves(now["config"]))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield f"{name}: {old.get(name)!r} then, {new.get(name)!r} now"
    if before.get("data") not in (None, now["data"]):
        yield "data: the images, labels or identities have changed"


def _versions() -> Iterator[tuple[str, str]]:
    from importlib import metadata  # here: predictions do not wait for it

    for name in PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _commit() -> str | None:
    """Return the commit of fkp's own checkout and whether it has changes; None without git."""
    git = ["git", "-C", str(Path(__file__).parents[2])]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
        status = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + (", changed since" if status.stdout.strip() else "")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
