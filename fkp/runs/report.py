"""What a sweep has come to: at its end, and by `python -m fkp.runs.report sweep=outputs/sweeps/…` at any time.

Settings are compared on the validation faces, by which a sweep is to choose; of the test faces stands one figure, that
of the best setting.
"""

from __future__ import annotations

import html
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from fkp import console
from fkp.errors import FkpError
from fkp.files.reading import safe_cell
from fkp.metrics import interval
from fkp.runs import command_line, provenance, sweeps

FACES = "val_faces.csv"
CURVE = "val/nme"
COLUMNS = (
    "folder",
    "state",
    "val_nme",
    "minutes",
    "attempts",
    "error",
)  # of jobs, besides the keys that vary
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .8em;border-bottom:1px solid #ccc;text-align:left}"
    "svg{max-width:100%;height:auto}"
)


@command_line.main("report")
def main(cfg: DictConfig) -> None:
    """Print the report of a sweep, and write it into its folder; the last line is JSON."""
    folder = newest() if cfg.sweep == "last" else Path(cfg.sweep)
    made = read(folder)
    write(made, folder)
    show(made, folder)
    print(json.dumps(made.figures()))


def newest() -> Path:
    """The sweep that was begun last.

    Raises:
        FkpError: there is none.
    """
    found = sorted(
        sweeps.FOLDER.glob(f"*/{sweeps.EXPECTED}"), key=lambda file: file.stat().st_mtime
    )
    if not found:
        raise FkpError(
            f"no sweep in {sweeps.FOLDER.resolve()}; `python train.py -m key=value,value` is one"
        )
    return found[-1].parent


@dataclass
class Report:
    """A sweep's tables.

    Args:
        jobs: a row each: folder, state, a column for each key that varies, val_nme, minutes, attempts, error.
        settings: a row for each combination of values but for the seed, best first: setting, seeds, val_nme and std
            over seeds; worse_by: the difference to the best, low and high of its 95 % interval, verdict; test_nme of
            the best alone.
        curves: a job's folder -> (step, validation NME) of each epoch.
    """

    jobs: pd.DataFrame
    settings: pd.DataFrame
    curves: dict[str, list[tuple[int, float]]]

    def figures(self) -> dict[str, float | int | str]:
        """The few that others may want to check."""
        states: dict[str, float | int | str] = {
            f"jobs_{state}": int(count)
            for state, count in self.jobs["state"].value_counts().items()
        }
        if self.settings.empty:
            return states
        best = self.settings.iloc[0]
        return {**states, "best": str(best["setting"]), "val_nme": round(float(best["val_nme"]), 4)}


def read(folder: Path) -> Report:
    """All that a sweep's folder holds.

    Raises:
        FkpError: no such sweep.
    """
    try:
        expected = json.loads((folder / sweeps.EXPECTED).read_text(encoding="utf-8"))
        swept, jobs = list(expected["swept"]), dict(expected["jobs"])
    except (OSError, ValueError, KeyError, TypeError):
        raise FkpError(
            f"{folder}: not the folder of a sweep (it has no {sweeps.EXPECTED} that can be read)"
        ) from None
    rows = []
    for name, overrides in jobs.items():
        told = dict(one.lstrip("+").partition("=")[::2] for one in overrides)
        done = sweeps.recorded(folder / name)
        rows.append(
            {
                "folder": name,
                "state": _state(folder / name),
                **{key: told.get(key, "") for key in swept},
                "val_nme": sweeps.result(folder / name),
                "minutes": done.get("seconds", np.nan) / 60,
                "attempts": done.get("attempts", 0),
                "error": done.get("error", ""),
            }
        )
    table = pd.DataFrame(rows)
    return Report(
        table, _settings(table, swept, folder), {name: _curve(folder / name) for name in jobs}
    )


def _state(folder: Path) -> str:
    """finished, running, failed (of itself), stopped (by others; the same command goes on with it) or waiting."""
    if sweeps.result(folder) is not None:
        return "finished"
    if not folder.is_dir():
        return "waiting"
    try:
        with FileLock(folder / provenance.LOCK, timeout=0):
            pass
    except Timeout:
        return "running"
    code = sweeps.recorded(folder).get("code")
    if code is not None and 0 < code < 128:
        return "failed"
    return "stopped" if (folder / provenance.FILE).exists() else "waiting"


def _settings(jobs: pd.DataFrame, swept: Sequence[str], folder: Path) -> pd.DataFrame:
    """Finished jobs that differ in their seed alone, together, and compared with the best."""
    finished = jobs[jobs["state"] == "finished"]
    if finished.empty:
        return pd.DataFrame()
    keys = [key for key in swept if key != "seed"]
    rows = []
    for values, group in finished.groupby(keys, sort=False) if keys else [((), finished)]:
        told = dict(zip(keys, values, strict=True))
        row = {"setting": in_short(told), "seeds": len(group)}
        row |= {"val_nme": group["val_nme"].mean(), "std": group["val_nme"].std()}
        seeds = group["seed"] if "seed" in group else range(len(group))
        row["faces"] = {
            seed: _faces(folder / name) for seed, name in zip(seeds, group["folder"], strict=True)
        }
        rows.append(
            {**row, "test_nme": np.mean([_test(folder / name) for name in group["folder"]])}
        )
    table = pd.DataFrame(rows).sort_values("val_nme", ignore_index=True)
    best = table.iloc[0]
    intervals = [(0.0, 0.0)] + [paired(faces, best["faces"]) for faces in table["faces"][1:]]
    table["worse_by"] = table["val_nme"] - best["val_nme"]
    table["low"], table["high"] = np.array(intervals).T
    table["verdict"] = ["best", *(verdict(low, high) for low, high in intervals[1:])]
    table.loc[1:, "test_nme"] = np.nan  # nobody is to choose by it
    return table.drop(columns="faces")


def in_short(told: Mapping[Any, Any]) -> str:
    """Overrides in short: keys by their last part, where that tells them apart.

    >>> in_short({"model.optimizer.lr": "0.1", "seed": "2"}), in_short({"a.size": "1", "b.size": "2"})
    ('lr 0.1, seed 2', 'a.size 1, b.size 2')
    """
    last = {key: key.rpartition(".")[2] for key in told}
    short = last if len(set(last.values())) == len(last) else {key: key for key in told}
    return ", ".join(f"{short[key]} {value}" for key, value in told.items()) or "all"


def verdict(low: float, high: float) -> str:
    """What an interval of the difference to the best says of the best.

    >>> verdict(0.1, 0.3), verdict(-0.1, 0.3), verdict(float("nan"), float("nan"))
    ('the best is better', 'no difference seen', 'other faces')
    """
    if np.isnan(low):
        return "other faces"
    return "the best is better" if low > 0 else "no difference seen"


def paired(others: dict[str, pd.DataFrame], best: dict[str, pd.DataFrame]) -> tuple[float, float]:
    """The 95 % interval of the difference of two settings' NME on the same faces.

    Args:
        others, best: seed -> a row a face: its name as the index, columns identity and nme. Seeds that both have are
            paired; if there is none, the means over seeds are.

    Returns:
        low, high of others - best, the faces' unit; NaN if the faces are not the same.
    """
    seeds = [seed for seed in others if seed in best]
    pairs = [(others[seed], best[seed]) for seed in seeds] or [(_mean(others), _mean(best))]
    faces = pairs[0][1].index
    if faces.empty or any(
        len(one) != len(faces) or set(one.index) != set(faces) for pair in pairs for one in pair
    ):
        return float("nan"), float("nan")
    differences = [
        one["nme"].loc[faces].to_numpy() - two["nme"].loc[faces].to_numpy() for one, two in pairs
    ]
    return interval(np.stack(differences), pairs[0][1]["identity"].to_numpy())


def _mean(trainings: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Each face's mean over trainings."""
    return pd.concat(trainings.values()).groupby(level=0).agg({"identity": "first", "nme": "mean"})


def _faces(folder: Path) -> pd.DataFrame:
    """A row a validation face; none of a run that has left no such table."""
    try:
        return pd.read_csv(
            folder / FACES, index_col="face", dtype={"face": str, "identity": str}, na_filter=False
        )
    except (OSError, ValueError):
        return pd.DataFrame({"identity": [], "nme": []})


def _test(folder: Path) -> float:
    return float(
        json.loads((folder / sweeps.FIGURES).read_text(encoding="utf-8")).get("test/nme", np.nan)
    )


def _curve(folder: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it tells of each file
    written = next((folder / "tensorboard").glob("*"), None)
    if written is None:
        return []
    events = EventAccumulator(str(written), {"scalars": 0})
    events.Reload()
    if CURVE not in events.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in events.Scalars(CURVE)]


def write(made: Report, folder: Path) -> None:
    """report.txt, report.csv (a row a job) and report.html (with the curves) in the sweep's folder."""
    table = made.jobs.map(lambda cell: safe_cell(cell) if isinstance(cell, str) else cell)
    table.to_csv(folder / "report.csv", index=False)
    with (folder / "report.txt").open("w", encoding="utf-8") as file:
        for one in _tables(made):
            Console(file=file, width=160).print(one)
    title = html.escape(folder.resolve().name)
    parts = [f"<h2>{html.escape(str(one.title))}</h2>{_as_html(one)}" for one in _tables(made)]
    page = f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>'
    (folder / "report.html").write_text(
        "\n".join([page, *parts[:1], drawn(made), *parts[1:]]) + "\n", encoding="utf-8"
    )


def show(made: Report, folder: Path) -> None:
    """Print the tables, and where they lie."""

    for one in _tables(made):
        console.CONSOLE.print(one)
    console.print_line(f"report      {console.relative_path(folder / 'report.html')}, .csv, .txt")
    console.print_line(f"            tensorboard --logdir {console.relative_path(folder)}")


def close(folder: Path) -> None:
    """The end of a sweep.

    Raises:
        FkpError: not all jobs are finished.
    """
    made = read(folder)
    write(made, folder)
    show(made, folder)
    left = made.jobs[made.jobs["state"] != "finished"]
    if len(left):
        states = ", ".join(
            f"{count} {state}" for state, count in left["state"].value_counts().items()
        )
        raise FkpError(
            f"{len(left)} of {len(made.jobs)} jobs are not finished ({states}); the same command goes on with them"
        )


def _tables(made: Report) -> list[Table]:
    """Settings and jobs as they are shown."""
    tables = []
    if not made.settings.empty:
        table = Table(
            "setting",
            "seeds",
            "val NME",
            "worse by (95 %)",
            "test NME",
            title="Settings, best first",
        )
        for row in made.settings.to_dict("records"):
            spread = "" if np.isnan(row["std"]) else f" ± {row['std']:.2f}"
            worse = row["verdict"]
            if worse != "best":
                worse = f"{row['worse_by']:.2f} ({row['low']:.2f} – {row['high']:.2f}): {worse}"
            test = "" if np.isnan(row["test_nme"]) else f"{row['test_nme']:.2f}"
            value = f"{row['val_nme']:.2f}{spread}"
            table.add_row(row["setting"], str(row["seeds"]), value, worse, test)
        tables.append(table)
    table = Table("job", "state", "val NME", "minutes", "attempts", "why", title="Jobs")
    for row in made.jobs.to_dict("records"):
        value = (
            "" if row["val_nme"] is None or np.isnan(row["val_nme"]) else f"{row['val_nme']:.2f}"
        )
        minutes = "" if np.isnan(row["minutes"]) else f"{row['minutes']:.1f}"
        table.add_row(
            row["folder"], row["state"], value, minutes, str(row["attempts"]), row["error"]
        )
    return [*tables, table]


def _as_html(table: Table) -> str:
    head = "".join(f"<th>{html.escape(str(column.header))}</th>" for column in table.columns)
    cells = zip(*(list(column.cells) for column in table.columns), strict=True)
    rows = [
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in cells
    ]
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def drawn(made: Report, width: int = 900, height: int = 380) -> str:
    """The curves as SVG: a colour for each setting, a line for each of its seeds."""
    keys = [key for key in made.jobs.columns if key not in (*COLUMNS, "seed")]
    settings = [in_short({key: row[key] for key in keys}) for row in made.jobs.to_dict("records")]
    colours = {
        setting: PALETTE[i % len(PALETTE)] for i, setting in enumerate(dict.fromkeys(settings))
    }
    points = np.array(
        [point for curve in made.curves.values() for point in curve if np.isfinite(point[1])]
    )
    if not len(points):
        return ""
    last, low = points[:, 0].max(), points[:, 1].min()
    high = max(np.quantile(points[:, 1], 0.9), low * 1.05)  # first epochs may be far off
    left, top, right, bottom = 50, 10, width - 10, height - 30

    def at(step: float, value: float) -> tuple[float, float]:
        share = (min(value, high) - low) / (high - low)
        return left + (right - left) * step / max(1, last), bottom - (bottom - top) * share

    size = f"0 0 {width} {height + 18 * len(colours)}"
    parts = [
        f'<svg viewBox="{size}" xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12">'
    ]
    for value in np.linspace(low, high, 5):
        y = at(0, value)[1]
        parts.append(
            f'<path d="M{left},{y:.1f}H{right}" stroke="#ddd"/><text x="4" y="{y + 4:.1f}">{value:.2f}</text>'
        )
    parts.append(
        f'<text x="{left}" y="{height - 8}">validation NME, % of the outer-eye distance, against steps</text>'
    )
    parts.append(f'<text x="{right}" y="{height - 8}" text-anchor="end">{last:.0f}</text>')
    for name, setting in zip(made.jobs["folder"], settings, strict=True):
        line = " ".join(
            "{:.1f},{:.1f}".format(*at(*point))
            for point in made.curves[name]
            if np.isfinite(point[1])
        )
        told = f"<title>{html.escape(name)}</title>"
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colours[setting]}">{told}</polyline>'
        )
    for i, (setting, colour) in enumerate(colours.items()):
        y, said = height + 14 + 18 * i, html.escape(setting)
        parts.append(f'<path d="M{left},{y - 4}h24" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{left + 32}" y="{y}">{said}</text>')
    return "".join([*parts, "</svg>"])


if __name__ == "__main__":
    main()
