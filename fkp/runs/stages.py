"""Train in stages: `stages:` of an experiment lists changes; each is a run from the one before."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fkp.errors import FkpError
from fkp.files.reading import read_text
from fkp.files.writing import write_whole
from fkp.runs import command_line, cross_validation, provenance, sweeps
from fkp.runs.overrides import key, leaves, text
from fkp.runs.start import KEYS as START

STAGES = "stages"
COMMAND = "stages.json"  # in the folder of the sweep: the overrides of the command line
LONGEST = 1 << 20  # bytes of this file, at most
# What cannot be done in stages: each of these is one training, or a sweep of its own.
OTHERS = ("resume", "start.from=last", "data.folds", "debug", "-m", "--multirun")
PLAIN = re.compile(r"[\w./+-]+")  # text that Hydra's grammar reads without quotes


def arguments(given: Sequence[str]) -> list[str]:
    """Complete the command line of `train.py`; an experiment with stages becomes a sweep over them.

    `run_dir`, if it is given, becomes the folder of the sweep; `resume=FOLDER` continues one.
    `stages=null` trains once, without the changes of any stage.

    Raises:
        FkpError: a key that contradicts stages; or as `cross_validation.arguments`.
    """
    given = _resumed(given)
    values = {key(one): text(one) for one in given}
    if not _has_stages(given, values):
        return cross_validation.arguments(given)
    for one in given:
        if one in OTHERS or key(one) in OTHERS:
            hint = "the same command again continues the stages; stages=null trains without them"
            raise FkpError(
                f"{one}: not for an experiment with stages; {hint}", key=key(one), hint=hint
            )

    kept = [one for one in given if key(one) not in ("run_dir", "hydra.run.dir")]
    folder = values.get("run_dir", values.get("hydra.run.dir"))
    if folder is None:
        folder = (sweeps.FOLDER / sweeps.folder_name(kept, ["experiment"])).as_posix()

    # Insert beside the override: Hydra reads those of one side of its options only.
    place = [key(one) for one in kept].index("experiment" if "experiment" in values else STAGES)
    added = ["hydra/sweeper=stages", f"hydra.sweep.dir={folder}"]
    return sweeps.arguments(["-m", *kept[:place], *added, *kept[place:]])


def _resumed(given: Sequence[str]) -> list[str]:
    """Return the command line, with that of the stages which `resume=FOLDER` is to continue."""
    folder = next((text(one) for one in given if key(one) == "resume"), "")
    try:
        recorded = [str(one) for one in json.loads(read_text(Path(folder) / COMMAND, LONGEST))]
    except (FkpError, OSError, ValueError, TypeError):
        return list(given)  # a run, or a folder of neither, which is reported later
    added = [one for one in given if key(one) != "resume"]
    keys = {key(one) for one in added}
    kept = [one for one in recorded if key(one) not in keys]
    return [*kept, *added, f"run_dir={folder}"]


def _has_stages(given: Sequence[str], values: dict[str, str]) -> bool:
    """Return whether the command line names stages, or an experiment that has some.

    Only the experiment's own file is read: composing the configuration would delay every start.
    """
    if STAGES in values:
        return values[STAGES].lower() not in ("null", "none", "false")
    name = values.get("experiment", "")
    own = [one.partition("=")[2] for one in given if one.startswith("--config-dir=")]
    folders = [*map(Path, own), command_line.conf_folder(Path(__file__))]
    files = [folder / "experiment" / f"{name}.yaml" for folder in folders if name]
    file = next((file for file in files if file.is_file()), None)
    return file is not None and bool(re.search(rf"(?m)^{STAGES}:", file.read_text("utf-8")))


def refuse_unread(cfg: DictConfig) -> None:
    """Refuse stages that `arguments` has not seen, as they would be left out silently.

    Raises:
        FkpError: the configuration has stages.
    """
    if cfg.get(STAGES) is not None:
        hint = "name the experiment that lists them on the command line, or set stages=null"
        raise FkpError(f"{STAGES}: they would not be trained; {hint}", key=STAGES, hint=hint)


def jobs(given: Sequence[str], stages: Any, folder: Path) -> dict[str, list[str]]:
    """Return the overrides of each stage, by the name of its folder.

    What the command line gives holds in every stage, whatever the stage says; only
    `start.from` and `start.mode` are those of the first one. A stage starts from the best weights
    of the one before, unless it says `start: {from: …, mode: …}`.

    Args:
        given: the overrides of the command line.
        stages: nested changes of the configuration, one dict a stage.
        folder: of the sweep.

    Raises:
        FkpError: stages that are not such a list.
    """
    stages = (
        OmegaConf.to_container(stages, resolve=False) if OmegaConf.is_config(stages) else stages
    )
    if not (isinstance(stages, list) and stages and all(isinstance(one, dict) for one in stages)):
        raise FkpError(
            f"{STAGES}: give a list of changes, such as [{{trainer: {{max_epochs: 3}}}}]",
            key=STAGES,
        )

    first = [one for one in given if key(one).partition(".")[0] != STAGES]
    rest = [one for one in first if key(one) not in START]
    made: dict[str, list[str]] = {}
    before = ""
    for number, stage in enumerate(stages, 1):
        own = rest if made else first
        keys = {key(one) for one in own}
        changes = dict(leaves(stage))
        if before and not set(START) & set(changes):
            changes |= {"start.from": f"{folder / before / provenance.CHECKPOINT}"}
            changes |= {"start.mode": "finetune"}
        before = f"stage_{number}"
        written = [
            f"{name}={_written(value)}" for name, value in changes.items() if name not in keys
        ]
        made[before] = [*own, f"{STAGES}=null", *written]
    return made


def _written(value: Any) -> str:
    """Write a value in Hydra's grammar.

    >>> _written([0.5, 2]), _written("a b"), _written("lfw"), _written(None)
    ('[0.5,2]', '"a b"', 'lfw', 'null')
    """
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, str) and PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def begin(folder: Path, given: Sequence[str], made: dict[str, list[str]]) -> None:
    """Record what the folder of the sweep is to hold.

    Args:
        folder: of the sweep.
        given: the overrides of the command line.
        made: those of each stage, by the name of its folder.
    """
    sweeps.write_jobs(folder, [], made)
    write_whole(folder / COMMAND, json.dumps(list(given), indent=1) + "\n")


def require_finished(folder: Path) -> None:
    """Require that a stage has finished.

    Args:
        folder: of the stage.

    Raises:
        FkpError: it failed or was stopped, with what it has printed.
    """
    cross_validation.refuse_mistake(folder)
    if sweeps.validation_nme(folder) is None:
        reason = sweeps.read_attempts(folder).get("error", "")
        hint = "the same command again continues it"
        raise FkpError(f"{folder}: is not finished ({reason}); {hint}", file=folder, hint=hint)


def close(folder: Path, names: Sequence[str]) -> None:
    """Copy the last stage's best weights to the folder of all, and print each stage and the time.

    Args:
        folder: of the sweep.
        names: of the stages' folders, in order.
    """
    from fkp.console import print_line, relative_path

    best = folder / provenance.CHECKPOINT
    best.parent.mkdir(parents=True, exist_ok=True)
    write_whole(best, (folder / names[-1] / provenance.CHECKPOINT).read_bytes(), durable=True)

    seconds = [sweeps.read_attempts(folder / name).get("seconds", 0) for name in names]
    for name, took in zip(names, seconds, strict=True):
        metrics = json.loads((folder / name / sweeps.METRICS).read_text(encoding="utf-8"))
        note = " (of faces that are trained on)" if metrics.get(sweeps.TRAINED_ON) else ""
        print_line(f"{name:<11} val NME {metrics[sweeps.VALUE]:.2f}{note}, {took / 60:.1f} minutes")
    print_line(f"total       {sum(seconds) / 60:.1f} minutes")
    print_line(f"checkpoint  {relative_path(best)}")
