"""Draw the learning curves of runs.

    python benchmarks/accuracy/curves.py outputs/… [outputs/… …] --out curves.png

Reads TensorBoard's files, and draws training NME, validation NME and learning rate against minutes.
Prints the last values, and the minutes after which the validation NME first fell below some marks.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

# Percent of NME.
MARKS = (10.0, 6.0, 5.0, 4.0, 3.5)

# The line style of each curve.
STYLES = {"train/nme": ":", "val/nme": "-"}


def read_curves(run: Path) -> dict[str, list[Any]]:
    """Read the scalars of a run; a resumed run has several versions of TensorBoard's files."""
    curves: dict[str, list[Any]] = defaultdict(list)
    for version in sorted((run / "tensorboard").iterdir()):
        events = EventAccumulator(str(version), {"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            curves[tag] += events.Scalars(tag)
    return curves


def draw_run(run: Path, colour: str, errors: Any, rates: Any) -> dict[str, float]:
    """Draw the curves of a run into the axes of errors and learning rates; return its metrics."""
    curves = read_curves(run)
    began = min(points[0].wall_time for points in curves.values())
    metrics: dict[str, float] = {}

    def minutes(point: Any) -> float:
        return (point.wall_time - began) / 60

    def draw(axis: Any, tag: str, style: str, label: str | None) -> None:
        points = curves[tag]
        values = [point.value for point in points]
        axis.plot([minutes(point) for point in points], values, style, color=colour, label=label)

    # Errors, and their last values.
    for tag, style in STYLES.items():
        draw(errors, tag, style, f"{run.name} {tag}")
        metrics[f"{run.name}_{tag.replace('/', '_')}"] = round(curves[tag][-1].value, 3)

    # The first minute below each mark.
    for mark in MARKS:
        below = [point for point in curves["val/nme"] if point.value < mark]
        if below:
            metrics[f"{run.name}_minutes_to_{mark:g}"] = round(minutes(below[0]), 1)

    for tag in curves:
        if tag.startswith("lr-"):
            draw(rates, tag, "-", None)
    return metrics


def main() -> None:
    """Draw the curves and print the metrics."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    figure, (errors, rates) = pyplot.subplots(
        2, 1, figsize=(7, 5), sharex=True, height_ratios=(4, 1)
    )
    metrics: dict[str, float] = {}
    for number, run in enumerate(options.runs):
        metrics |= draw_run(run, f"C{number}", errors, rates)

    errors.set(ylabel="NME, %", yscale="log")
    errors.set_ylim(top=20)
    errors.yaxis.set_major_formatter("{x:g}")
    errors.yaxis.set_minor_formatter("{x:g}")
    errors.grid(alpha=0.3, which="both")
    errors.legend()
    rates.set(xlabel="minutes", ylabel="learning rate")
    figure.tight_layout()
    figure.savefig(options.out, dpi=80)
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
