"""Read the jobs of a sweep and compare its settings.

Settings are compared on the validation faces. Only the best setting gets a test metric, so that
test faces do not choose the setting.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from fkp.errors import FkpError
from fkp.metrics import interval
from fkp.runs import provenance, sweeps
from fkp.runs.cross_validation import FOLD

FACES = "val_faces.csv"
CURVE = "val/nme"
# Keys whose values repeat a training, and are averaged over.
REPEATS = ("seed", FOLD)
# Columns of the jobs' table, besides the keys that vary.
COLUMNS = ("folder", "state", "val_nme", "minutes", "attempts", "error")


@dataclass
class SweepResults:
    """The results of a sweep.

    Args:
        jobs: a row per job: folder, state, a column for each key that varies, val_nme, minutes,
            attempts, error.
        settings: a row per combination of values without seed and fold, best first: setting,
            number of runs, val_nme and std over these; the difference to the best (worse_by), low
            and high of its 95 % interval, verdict; test_nme of the best alone.
        curves: folder of a job -> step and validation NME of each epoch.
    """

    jobs: pd.DataFrame
    settings: pd.DataFrame
    curves: dict[str, list[tuple[int, float]]]

    def metrics(self) -> dict[str, float | int | str]:
        """Summarise the results: jobs by state, the best setting and its validation NME."""
        counts = self.jobs["state"].value_counts().items()
        summary: dict[str, float | int | str] = {
            f"jobs_{state}": int(count) for state, count in counts
        }
        if not self.settings.empty:
            best = self.settings.iloc[0]
            summary["best"] = str(best["setting"])
            summary["val_nme"] = round(float(best["val_nme"]), 4)
        return summary


def read(folder: Path) -> SweepResults:
    """Read the state of a sweep from its folder.

    Raises:
        FkpError: no such sweep.
    """
    try:
        known = json.loads((folder / sweeps.JOBS).read_text(encoding="utf-8"))
        swept, jobs = list(known["swept"]), dict(known["jobs"])
    except (OSError, ValueError, KeyError, TypeError):
        raise FkpError(
            f"{folder}: not the folder of a sweep (it has no readable {sweeps.JOBS})"
        ) from None

    table = pd.DataFrame([_job(folder / name, jobs[name], swept) for name in jobs])
    curves = {name: _curve(folder / name) for name in jobs}
    return SweepResults(table, _settings(table, swept, folder), curves)


def _job(folder: Path, overrides: Sequence[str], swept: Sequence[str]) -> dict[str, Any]:
    """Return a job's row."""
    values = dict(override.lstrip("+").partition("=")[::2] for override in overrides)
    attempts = sweeps.read_attempts(folder)
    return {
        "folder": folder.name,
        "state": _state(folder),
        **{key: values.get(key, "") for key in swept},
        "val_nme": sweeps.validation_nme(folder),
        "minutes": attempts.get("seconds", np.nan) / 60,
        "attempts": attempts.get("attempts", 0),
        "error": attempts.get("error", ""),
    }


def _state(folder: Path) -> str:
    """Return a job's state: finished, running, failed, stopped (from outside) or waiting."""
    if sweeps.validation_nme(folder) is not None:
        return "finished"
    if not folder.is_dir():
        return "waiting"
    try:
        with FileLock(folder / provenance.LOCK, timeout=0):
            pass
    except Timeout:
        return "running"

    # Codes below 0 and from 128 are those of signals.
    code = sweeps.read_attempts(folder).get("code")
    if code is not None and 0 < code < 128:
        return "failed"
    return "stopped" if (folder / provenance.FILE).exists() else "waiting"


def _settings(jobs: pd.DataFrame, swept: Sequence[str], folder: Path) -> pd.DataFrame:
    """Group the finished jobs that differ in seed or fold alone; compare them with the best."""
    finished = jobs[jobs["state"] == "finished"]
    if finished.empty:
        return pd.DataFrame()

    # Average over seeds and folds.
    keys = [key for key in swept if key not in REPEATS]
    rows = []
    for values, group in finished.groupby(keys, sort=False) if keys else [((), finished)]:
        folders = [folder / name for name in group["folder"]]
        rows.append(
            {
                "setting": setting_name(dict(zip(keys, values, strict=True))),
                "runs": len(group),
                "val_nme": group["val_nme"].mean(),
                "std": group["val_nme"].std(),
                "faces": _faces_of_seeds(group, folder),
                "test_nme": np.mean([_test_nme(one) for one in folders]),
            }
        )
    table = pd.DataFrame(rows).sort_values("val_nme", ignore_index=True)

    # Compare with the best.
    best = table.iloc[0]
    others = [paired_interval(faces, best["faces"]) for faces in table["faces"][1:]]
    table["worse_by"] = table["val_nme"] - best["val_nme"]
    table["low"], table["high"] = np.array([(0.0, 0.0), *others]).T
    table["verdict"] = ["best", *(verdict(low, high) for low, high in others)]
    table.loc[1:, "test_nme"] = np.nan
    return table.drop(columns="faces")


def setting_name(values: Mapping[Any, Any]) -> str:
    """Name a setting by its values; keys by their last word where that is unique.

    >>> setting_name({"model.optimizer.lr": "0.1", "seed": "2"})
    'lr 0.1, seed 2'
    >>> setting_name({"a.size": "1", "b.size": "2"})
    'a.size 1, b.size 2'
    """
    last = {key: key.rpartition(".")[2] for key in values}
    names = last if len(set(last.values())) == len(last) else {key: key for key in values}
    return ", ".join(f"{names[key]} {value}" for key, value in values.items()) or "all"


def verdict(low: float, high: float) -> str:
    """Put into words the interval of a setting's difference to the best.

    >>> verdict(0.1, 0.3), verdict(-0.1, 0.3), verdict(float("nan"), float("nan"))
    ('the best is better', 'no difference seen', 'other faces')
    """
    if np.isnan(low):
        return "other faces"
    return "the best is better" if low > 0 else "no difference seen"


def paired_interval(
    others: dict[str, pd.DataFrame], best: dict[str, pd.DataFrame]
) -> tuple[float, float]:
    """Compute the 95 % interval of the difference of two settings' NME on the same faces.

    Seeds that both settings have are paired; if there is none, the means over seeds are.

    Args:
        others: seed -> a row per face: its name as the index, columns identity and nme.
        best: likewise.

    Returns:
        low and high of others - best, in the unit of nme; NaN if the faces are not the same.
    """
    seeds = [seed for seed in others if seed in best]
    pairs = [(others[seed], best[seed]) for seed in seeds] or [(_mean(others), _mean(best))]
    faces = pairs[0][1].index
    tables = [table for pair in pairs for table in pair]
    if faces.empty or any(
        len(table) != len(faces) or set(table.index) != set(faces) for table in tables
    ):
        return float("nan"), float("nan")

    differences = [(one["nme"].loc[faces] - two["nme"].loc[faces]).to_numpy() for one, two in pairs]
    return interval(np.stack(differences), pairs[0][1]["identity"].to_numpy())


def _mean(seeds: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Average each face over seeds."""
    return pd.concat(seeds.values()).groupby(level=0).agg({"identity": "first", "nme": "mean"})


def _faces_of_seeds(jobs: pd.DataFrame, folder: Path) -> dict[str, pd.DataFrame]:
    """Return seed -> a row per validation face of its jobs, which are one, or several folds."""
    if FOLD not in jobs:
        each = jobs["seed"] if "seed" in jobs else range(len(jobs))
        names = zip(map(str, each), jobs["folder"], strict=True)
        return {seed: _faces(folder / name) for seed, name in names}

    # A face is validated on in several folds, each time by another network.
    seeds = jobs["seed"] if "seed" in jobs else [""] * len(jobs)
    tables: dict[str, list[pd.DataFrame]] = {}
    for seed, fold, name in zip(seeds, jobs[FOLD], jobs["folder"], strict=True):
        table = _faces(folder / name)
        table.index = pd.Index([f"{fold}/{face}" for face in table.index])
        tables.setdefault(seed, []).append(table)
    return {seed: pd.concat(of_seed) for seed, of_seed in tables.items()}


def _faces(folder: Path) -> pd.DataFrame:
    """Read a job's validation faces, a row each; empty if it has not written them."""
    types = {"face": str, "identity": str}
    try:
        return pd.read_csv(folder / FACES, index_col="face", dtype=types, na_filter=False)
    except (OSError, ValueError):
        return pd.DataFrame({"identity": [], "nme": []})


def _test_nme(folder: Path) -> float:
    metrics = json.loads((folder / sweeps.METRICS).read_text(encoding="utf-8"))
    return float(metrics.get("test/nme", np.nan))


def _curve(folder: Path) -> list[tuple[int, float]]:
    """Read step and validation NME of each epoch from TensorBoard's files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # TensorBoard logs a line for each file that it reads.
    logging.getLogger("tensorboard").setLevel(logging.WARNING)
    written = next((folder / "tensorboard").glob("*"), None)
    if written is None:
        return []
    events = EventAccumulator(str(written), {"scalars": 0})
    events.Reload()
    if CURVE not in events.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in events.Scalars(CURVE)]
