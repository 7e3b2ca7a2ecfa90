"""Cross-validate by person: `train.py data.folds=5` trains each fold, then a final model."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from fkp.errors import FkpError
from fkp.runs import provenance, sweeps
from fkp.runs.overrides import key, text

FOLDS, FOLD = "data.folds", "data.fold"


def arguments(given: Sequence[str]) -> list[str]:
    """Complete the command line of `train.py`; `data.folds=K` becomes a sweep over `data.fold`.

    `run_dir`, if it is given, becomes the folder of the sweep, and of the final model. With `-m`,
    every setting of the sweep is trained on every fold, and there is no final model.

    Raises:
        FkpError: as `sweeps.arguments`.
    """
    values = {key(one): text(one) for one in given}
    count = values.get(FOLDS, "")
    if FOLD in values or not re.fullmatch(r"\d+", count) or int(count) < 2:
        return sweeps.arguments(given)

    # Insert beside the override: Hydra reads those of one side of its options only.
    added = [f"{FOLD}={','.join(map(str, range(int(count))))}"]
    kept = list(given)
    if not {"-m", "--multirun"} & set(given):
        kept = ["-m", *(one for one in given if key(one) not in ("run_dir", "hydra.run.dir"))]
        added.append("hydra/sweeper=folds")
        if folder := values.get("run_dir", values.get("hydra.run.dir")):
            added.append(f"hydra.sweep.dir={folder}")
    place = [key(one) for one in kept].index(FOLDS)
    return sweeps.arguments([*kept[:place], *added, *kept[place:]])


def final_job(fold: Sequence[str]) -> list[str]:
    """Return the overrides of the final model, by those of a fold: it lies in the sweep's folder.

    Hydra joins the folder of the sweep and `hydra.sweep.subdir`.
    """
    from fkp.data.folds import ALL

    kept = [one for one in fold if key(one) != FOLD]
    return [*kept, f"{FOLD}={ALL}", "hydra.sweep.subdir=."]


def refuse_others(folder: Path, jobs: Sequence[Sequence[str]]) -> None:
    """Refuse a folder that holds something else than this cross-validation.

    A list of jobs of which none has begun, because of a mistake in the command, is removed.

    Raises:
        FkpError: it holds another one, or a run.
    """
    if not [*folder.glob(provenance.FILE), *folder.glob(f"*/{provenance.FILE}")]:
        (folder / sweeps.JOBS).unlink(missing_ok=True)
        return

    try:
        known = json.loads((folder / sweeps.JOBS).read_text("utf-8"))["jobs"].values()
        same = sorted(known) == sorted(map(list, jobs))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        same = False
    if not same:
        hint = "name another run_dir"
        raise FkpError(
            f"{folder}: holds a run or a sweep of other settings; {hint}",
            key="run_dir",
            file=folder,
            hint=hint,
        )


def refuse_mistake(folder: Path) -> None:
    """Refuse a command whose first fold has failed before it began.

    Args:
        folder: of the fold.

    Raises:
        FkpError: with what the fold has printed.
    """
    attempt = sweeps.read_attempts(folder)
    if attempt.get("code") and not (folder / provenance.FILE).exists():
        raise FkpError(sweeps.last_output(folder / sweeps.OUTPUT))


def print_final(folder: Path) -> None:
    """Print where the final model is, and which error to expect of it."""
    from fkp.console import print_line, relative_path
    from fkp.runs import fold_results

    record = json.loads((folder / fold_results.FILE).read_text(encoding="utf-8"))
    nme = record.get("nme") or record["nme_mean"]
    print_line(f"metrics     {relative_path(folder / fold_results.FILE)}")
    print_line(
        f"checkpoint  {relative_path(folder / provenance.CHECKPOINT)}, trained on all faces "
        f"but those of the validation; NME to expect: {nme:.2f}, as the folds have on unseen people"
    )
