"""Read and pool the folds of a cross-validation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fkp.files.reading import safe_cell
from fkp.files.writing import write_whole
from fkp.metrics import interval, summary
from fkp.runs import sweeps
from fkp.runs.cross_validation import FOLD

FILE = "folds.json"
OUT_OF_FOLD = "out_of_fold.csv"
FACES = "test_faces.csv"  # of a fold's job
SHOWN = ("nme", "fr8", "fr10")


@dataclass
class FoldResults:
    """The results of a cross-validation.

    Args:
        folds: a row per fold: fold, state, faces, nme, fr8, fr10 (percent), folder, error.
        faces: a row per face of the finished folds: face, identity, fold, nme (percent).
    """

    folds: pd.DataFrame
    faces: pd.DataFrame

    def metrics(self) -> dict[str, Any]:
        """Summarise: mean and standard deviation over folds, and the pooled out-of-fold metrics."""
        nme = self.folds["nme"].dropna()
        record: dict[str, Any] = {
            "folds_finished": len(nme),
            "folds": len(self.folds),
            "nme_mean": float(nme.mean()),
            "nme_std": float(nme.std()),
        }
        if len(self.faces):
            errors = self.faces["nme"].to_numpy(float)
            identity = self.faces["identity"].to_numpy()
            low, high = interval(errors, identity)
            record |= {"faces": len(errors), "people": len(set(identity))}
            record |= summary(errors / 100) | {"nme_low": low, "nme_high": high}
        return record

    def table(self) -> pd.DataFrame:
        """Format the folds, their mean, and the pooled faces for readers, as text."""
        rows = [
            {
                "fold": str(row["fold"]),
                "faces": str(row["faces"] or ""),
                **{name: _number(row[name]) for name in SHOWN},
                "state": f"{row['state']}: {row['error']}" if row["error"] else row["state"],
            }
            for row in self.folds.to_dict("records")
        ]
        spread = {
            name: " ± ".join(map(_number, (self.folds[name].mean(), self.folds[name].std())))
            for name in SHOWN
        }
        rows.append({"fold": "mean ± std", "faces": "", **spread, "state": ""})

        pooled = self.metrics()
        if "nme" in pooled:
            shown = {name: _number(pooled[name]) for name in SHOWN}
            shown["nme"] += f" ({_number(pooled['nme_low'])} – {_number(pooled['nme_high'])})"
            faces = str(pooled["faces"])
            rows.append({"fold": "all faces (95 %)", "faces": faces, **shown, "state": ""})
        names = {"nme": "NME", "fr8": "FR@8", "fr10": "FR@10"}
        return pd.DataFrame(rows).rename(columns=names)


def read(jobs: pd.DataFrame, folder: Path) -> FoldResults | None:
    """Read the folds of a sweep.

    Args:
        jobs: of `SweepResults`.
        folder: of the sweep.

    Returns:
        None if the sweep is no cross-validation of one setting.
    """
    if FOLD not in jobs or jobs[FOLD].duplicated().any():
        return None
    rows, faces = [], []
    for job in jobs.to_dict("records"):
        metrics, tested = _metrics(folder / job["folder"]), faces_of(folder / job["folder"])
        finished = job["state"] == "finished"
        rows.append(
            {
                "fold": job[FOLD],
                "state": job["state"],
                "faces": len(tested) if finished else 0,
                **{
                    name: metrics.get(f"test/{name}", np.nan) if finished else np.nan
                    for name in SHOWN
                },
                "folder": job["folder"],
                "error": "" if finished else job["error"],
            }
        )
        if finished:
            faces.append(tested.assign(fold=job[FOLD]))
    pooled = pd.concat(faces, ignore_index=True) if faces else pd.DataFrame()
    return FoldResults(pd.DataFrame(rows), pooled)


def write(results: FoldResults, folder: Path) -> None:
    """Write folds.json, and the out-of-fold error of each face as a table."""
    folds = [
        {str(name): _json(value) for name, value in row.items()}
        for row in results.folds.to_dict("records")
    ]
    record = {name: _json(value) for name, value in results.metrics().items()}
    record["each_fold"] = folds
    write_whole(folder / FILE, json.dumps(record, indent=1, allow_nan=False) + "\n")

    cells = results.faces.map(lambda cell: safe_cell(cell) if isinstance(cell, str) else cell)
    table = cells.to_csv(index=False, float_format="%.4f", lineterminator="\n")
    write_whole(folder / OUT_OF_FOLD, table)


def _metrics(folder: Path) -> dict[str, float]:
    """Read the metrics of a job; none before it is finished."""
    try:
        return dict(json.loads((folder / sweeps.METRICS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def faces_of(folder: Path) -> pd.DataFrame:
    """Read a job's test faces; none if it has not written them."""
    types = {"face": str, "identity": str}
    try:
        return pd.read_csv(folder / FACES, dtype=types, na_filter=False)
    except (OSError, ValueError):
        return pd.DataFrame({"face": [], "identity": [], "nme": []})


def _json(value: Any) -> Any:
    """Round a number to four decimals; None for one that is not finite."""
    if not isinstance(value, float):
        return value
    return round(value, 4) if np.isfinite(value) else None


def _number(value: float) -> str:
    """Format a number; missing ones as an empty cell."""
    return "" if np.isnan(value) else f"{value:.2f}"
