"""Report a sweep, at its end and by `python -m fkp.report sweep=FOLDER` at any time."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fkp import console
from fkp.errors import FkpError
from fkp.files.reading import safe_cell
from fkp.files.writing import write_whole
from fkp.runs import command_line, fold_results, sweeps
from fkp.runs.sweep_results import COLUMNS, SweepResults, read, setting_name

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}img{max-width:100%}"
    "td,th{padding:.25em .8em;border-bottom:1px solid #ccc;text-align:left}"
)


@command_line.main("report")
def main(cfg: DictConfig) -> None:
    """Print the report of a sweep and write it into its folder; the last line is JSON."""
    folder = newest() if cfg.sweep == "last" else Path(cfg.sweep)
    results = read(folder)
    write(results, folder)
    show(results, folder)
    print(json.dumps(results.metrics()))


def newest() -> Path:
    """Find the sweep that was started last.

    Raises:
        FkpError: there is none.
    """
    found = list(sweeps.FOLDER.glob(f"*/{sweeps.JOBS}"))
    if not found:
        raise FkpError(
            f"{sweeps.FOLDER.resolve()}: no sweep; start one with `python train.py -m key=a,b`"
        )
    return max(found, key=lambda file: file.stat().st_mtime).parent


def write(results: SweepResults, folder: Path) -> None:
    """Write report.txt, report.csv (a row per job) and report.html (with curves)."""
    jobs = results.jobs.map(lambda cell: safe_cell(cell) if isinstance(cell, str) else cell)
    write_whole(folder / "report.csv", jobs.to_csv(index=False, lineterminator="\n"))

    text = io.StringIO()
    for title, table in _tables(results, folder).items():
        Console(file=text, width=160).print(_for_console(title, table))
    write_whole(folder / "report.txt", text.getvalue())

    name = html.escape(folder.resolve().name)
    parts = [f'<!doctype html><meta charset="utf-8"><title>{name}</title><style>{STYLE}</style>']
    parts += [f"<h1>{name}</h1>", _curves_image(results)]
    with pd.option_context("display.max_colwidth", None):  # else pandas shortens cells
        for title, table in _tables(results, folder).items():
            parts += [f"<h2>{title}</h2>", table.to_html(index=False, border=0)]
    write_whole(folder / "report.html", "\n".join(parts) + "\n")


def show(results: SweepResults, folder: Path) -> None:
    """Print the tables and where they are."""
    for title, table in _tables(results, folder).items():
        console.CONSOLE.print(_for_console(title, table))
    console.print_line(f"report      {console.relative_path(folder / 'report.html')}, .csv, .txt")
    console.print_line(f"            tensorboard --logdir {console.relative_path(folder)}")


def close(folder: Path) -> None:
    """Report at the end of a sweep.

    Raises:
        FkpError: not all jobs are finished.
    """
    results = read(folder)
    write(results, folder)
    if folds := fold_results.read(results.jobs, folder):
        fold_results.write(folds, folder)
    show(results, folder)

    left = results.jobs[results.jobs["state"] != "finished"]
    if len(left):
        states = ", ".join(
            f"{count} {state}" for state, count in left["state"].value_counts().items()
        )
        raise FkpError(
            f"{len(left)} of {len(results.jobs)} jobs are not finished ({states}); "
            "the same command again continues them"
        )


def _tables(results: SweepResults, folder: Path) -> dict[str, pd.DataFrame]:
    """Format folds, settings and jobs for readers: title -> a table of text."""
    jobs = [
        {
            "job": row["folder"],
            "state": row["state"],
            "val NME": _number(row["val_nme"]),
            "minutes": _number(row["minutes"], 1),
            "attempts": str(row["attempts"]),
            "error": row["error"],
        }
        for row in results.jobs.to_dict("records")
    ]
    settings = [
        {
            "setting": row["setting"],
            "runs": str(row["runs"]),
            "val NME": " ± ".join(filter(None, (_number(row["val_nme"]), _number(row["std"])))),
            "worse by (95 %)": _difference(row),
            "test NME": _number(row["test_nme"]),
        }
        for row in results.settings.to_dict("records")
    ]
    tables = {"Settings, best first": pd.DataFrame(settings), "Jobs": pd.DataFrame(jobs)}
    if folds := fold_results.read(results.jobs, folder):
        # One setting, and each job is a fold.
        tables = {"Cross-validation: test faces, % of the normalising distance": folds.table()}
    return {title: table for title, table in tables.items() if len(table)}


def _number(value: float | None, digits: int = 2) -> str:
    """Format a number; missing ones as an empty cell."""
    return "" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def _difference(row: Mapping[Any, Any]) -> str:
    """Format a setting's difference to the best, with its interval."""
    if row["verdict"] == "best":
        return "best"
    return f"{row['worse_by']:.2f} ({row['low']:.2f} – {row['high']:.2f}): {row['verdict']}"


def _for_console(title: str, table: pd.DataFrame) -> Table:
    """Convert a table of text for rich."""
    shown = Table(*table.columns, title=title)
    for row in table.itertuples(index=False):
        shown.add_row(*map(Text, row))  # as text, so that [0,1] is no markup
    return shown


def _curves_image(results: SweepResults) -> str:
    """Plot the validation curves as an HTML image: a colour per setting, a line per seed.

    TensorBoard shows the same curves. Empty before the first epoch of the first job.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "<p>no curves, as matplotlib is not installed: pip install matplotlib</p>"
    values = [value for curve in results.curves.values() for _, value in curve]
    finite = np.array(values, float)[np.isfinite(values)]
    if not len(finite):
        return ""

    keys = [key for key in results.jobs.columns if key not in (*COLUMNS, "seed")]
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    colours: dict[str, str] = {}
    for row in results.jobs.to_dict("records"):
        setting = setting_name({key: row[key] for key in keys})
        label = None if setting in colours else setting  # once in the legend
        colour = colours.setdefault(setting, f"C{len(colours) % 10}")
        axes.plot(*np.array(results.curves[row["folder"]]).reshape(-1, 2).T, c=colour, label=label)

    # The first epochs may be far off: they do not set the scale.
    axes.set_ylim(finite.min(), max(np.quantile(finite, 0.9), finite.min() * 1.05))
    axes.set(xlabel="steps", ylabel="validation NME, % of the outer-eye distance")
    axes.grid(color="#ddd")
    figure.legend(loc="outside lower center")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    data = base64.b64encode(png.getvalue()).decode()
    return f'<img alt="validation curves" src="data:image/png;base64,{data}">'


if __name__ == "__main__":
    main()
