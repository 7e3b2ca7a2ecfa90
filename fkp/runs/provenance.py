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
from fkp.runs.overrides import text

FILE = "run.yaml"
LAST = "checkpoints/last.ckpt"
LOCK = ".run.lock"
PATIENCE = 10.0  # seconds for it: a report looks at it for a moment, and a job whose driver has died is about to stop
# What says how a run comes about, and not what it is.
ASKING = ("resume", "repeat", "allow_changes", "run_dir")
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
    """The command line of a run that goes on (`resume=true`, or its folder) or is repeated (`repeat=folder`): what the
    run was told, then what is told now. Any other as it is. A process that does not lead makes no folder besides.

    Raises:
        FkpError: no such run.
    """
    told = _of_run(given, outputs)
    if is_rank_zero():
        return told
    # Where the run is somebody who leads has settled: by the clock, if nobody was told, and clocks differ.
    folders = {key(one): text(one) for one in told}
    folder = folders.get("run_dir", folders.get("hydra.run.dir", str(outputs)))
    return [*told, f"hydra.run.dir={folder}", *QUIET]


def _of_run(given: Sequence[str], outputs: Path) -> list[str]:
    asked = {key(argument): text(argument) for argument in given}
    resume, repeat = asked.get("resume", "false"), asked.get("repeat", "null")
    if (resume.lower(), repeat.lower()) == ("false", "null"):
        return list(given)
    if repeat.lower() != "null":
        folder = Path(repeat)
    else:
        folder = _newest(outputs) if resume.lower() == "true" else Path(resume)
    told = [one for one in map(str, _read(folder)["command"]) if key(one) not in asked]
    if repeat.lower() == "null":
        told += [f"{key}={folder.resolve()}" for key in ("run_dir", "hydra.run.dir")]
    return [*told, *given]


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
    """Begin a run in its folder, or go on in it. A process that does not lead only learns where it goes on from.

    Args:
        folder: of the run; made if it is not there.
        config: the resolved configuration, with `resume`, `repeat` and `allow_changes`.
        command: the overrides that it was composed by.

    Raises:
        FkpError: no such checkpoint to begin with; the folder holds another run, or this one is still at work; or it is
            finished, and nothing has changed.
    """
    if config["ckpt_path"] is not None and not Path(config["ckpt_path"]).is_file():
        raise FkpError(f"ckpt_path={config['ckpt_path']}: no such checkpoint")
    if not is_rank_zero():
        return Run(
            folder,
            {"resumed": []} if config["resume"] else {},
            None,
            None,
            False,
            config["ckpt_path"],
        )
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        raise FkpError(f"{folder}: another process trains here") from None
    before = _read(folder) if (folder / FILE).exists() else None
    if before and not config["resume"]:
        raise FkpError(
            f"{folder}: holds a run; resume={folder} goes on with it, another run_dir=… begins one"
        )
    if before and (folder / "metrics.json").exists() and not config["allow_changes"]:
        raise FkpError(
            f"{folder}: is finished; trainer.max_epochs=… allow_changes=true trains it on"
        )
    record = {
        "command": [told for told in command if key(told) not in ASKING],
        "started": _now(),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **dict(_versions())},
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "config": _anywhere(config, str(folder)),
    }
    if before:
        record |= {
            "started": before.get("started"),
            "resumed": [*before.get("resumed", []), _now()],
        }
    known = before or (_read(Path(config["repeat"])) if config["repeat"] else None)
    return Run(folder, record, lock, known, bool(config["allow_changes"]), config["ckpt_path"])


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
