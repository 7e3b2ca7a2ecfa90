"""What a run was made of, kept in its folder, and known again when the run goes on or is repeated."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from fkp.errors import FkpError
from fkp.runs import start
from fkp.runs.overrides import text
from fkp.runs.start import Start

FILE = "run.yaml"
LAST = "checkpoints/last.ckpt"
LOCK = ".run.lock"
PATIENCE = 10.0  # seconds for it: a report looks at it for a moment, and a job whose driver has died is about to stop
# What says how a run comes about, and not what it is.
ASKING = ("start", "allow_changes", "run_dir")
# What Hydra would write for a process that does not lead.
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
SHOWN = 20  # differences that are told


def arguments(given: Sequence[str], outputs: Path = Path("outputs")) -> list[str]:
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
        from fkp.runs.checkpoints import last_checkpoint

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
            f"resume=true: no run in {outputs.resolve()}; start one, or name the folder of one by resume=…"
        )
    return found[-1].parent


def _read(folder: Path) -> dict[str, Any]:
    try:
        record = yaml.safe_load((folder / FILE).read_text(encoding="utf-8"))
        if not isinstance(record["command"], list) or not isinstance(record["config"], dict):
            raise TypeError
        return dict(record)
    except FileNotFoundError:
        raise FkpError(f"{folder}: not the folder of a run (it has no {FILE})") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError):
        raise FkpError(f"{folder / FILE}: cannot be read as the record of a run") from None


@dataclass
class Run:
    """A run that has begun, or goes on; nobody else trains in its folder meanwhile.

    Args:
        folder: where it leaves its files.
        record: what it was made of.
        lock: of the folder.
        known: the record of the run that goes on or is repeated, if it is.
        allow_changes: it may differ from that.
        told: the checkpoint that it was told to begin with.
    """

    folder: Path
    record: dict[str, Any]
    lock: FileLock | None
    known: dict[str, Any] | None
    allow_changes: bool
    told: str | None

    @property
    def resumed(self) -> bool:
        """Whether it goes on in a folder where it has been before."""
        return "resumed" in self.record

    @property
    def last(self) -> Path:
        """The checkpoint that it would go on from if it stopped."""
        return self.folder / LAST

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint that it begins with, if there is one: its own last, or the one it was told."""
        told = self.told and Path(self.told)
        return self.last if self.resumed and self.last.is_file() else told or None

    @property
    def joining(self) -> list[str]:
        """What a process that is to take part in it is told, after what this one was told."""
        folder = self.folder.resolve()
        return [f"run_dir={folder}", *([f"resume={folder}"] if self.resumed else [])]

    def made_of(self, data: str) -> None:
        """Keep the record, now that the fingerprint of the data is known, too.

        Raises:
            FkpError: data or configuration are not those of the run that goes on or is repeated.
        """
        if not is_rank_zero():
            return
        self.record["data"] = data
        differences = list(_differences(self.known, self.record)) if self.known else []
        if differences and not self.allow_changes:
            more = [f"… and {len(differences) - SHOWN} more"] if len(differences) > SHOWN else []
            listed = "\n  ".join([*differences[:SHOWN], *more])
            raise FkpError(
                f"This is not what that run was made of:\n  {listed}\nallow_changes=true takes it all the same."
            )
        draft = self.folder / f".{FILE}.part"
        draft.write_text(
            yaml.safe_dump(self.record, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
        draft.replace(self.folder / FILE)


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


def key(override: str) -> str:
    """The key that an override is about."""
    return override.lstrip("+~").partition("=")[0]


def is_rank_zero() -> bool:
    """Whether this is the first of the processes that train together, on all machines: it alone writes.

    They may have been started by torchrun, perhaps on machines of SLURM's, whose numbers then say nothing; by SLURM; or
    by fkp itself, once on each machine, as `fkp.runs.launch` does it.
    """
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    return all(
        os.environ.get(name, "0") == "0"
        for name in ("SLURM_PROCID", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK")
    )


def _anywhere(value: Any, folder: str) -> Any:
    """A configuration without what says how and where it runs, so that it can be compared."""
    if isinstance(value, dict):
        return {key: _anywhere(part, folder) for key, part in value.items() if key not in ASKING}
    if isinstance(value, list):
        return [_anywhere(part, folder) for part in value]
    return value.replace(folder, "${run_dir}") if isinstance(value, str) else value


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """`key: … then, … now`, a line each, in configuration and data."""
    old, new = dict(_flat("", before["config"])), dict(_flat("", now["config"]))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield f"{key}: {old.get(key)!r} then, {new.get(key)!r} now"
    if before.get("data") not in (None, now["data"]):
        yield "the data: pictures, labels or people have changed"


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), part)
    else:
        yield prefix, value


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _commit() -> str | None:
    """Of fkp's own checkout, if it is one, and whether it had been changed since."""
    git = ["git", "-C", str(Path(__file__).parents[2])]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + (", changed since" if changed.stdout.strip() else "")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
