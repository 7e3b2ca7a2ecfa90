"""Learning curves of runs as a picture: `python benchmarks/accuracy/curves.py outputs/… [outputs/… …] --out curves.png`.

Reads TensorBoard's files: training and validation NME and the learning rate against minutes. Prints the last figures,
and after how many minutes the validation NME was first below some marks.
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

MARKS = (10.0, 6.0, 5.0, 4.0, 3.5)


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    figure, (errors, rates) = pyplot.subplots(
        2, 1, figsize=(7, 5), sharex=True, height_ratios=(4, 1)
    )
    figures: dict[str, float] = {}
    for number, run in enumerate(told.runs):
        colour = f"C{number}"
        curves: dict[str, list[Any]] = defaultdict(list)
        for version in sorted(
            (run / "tensorboard").iterdir()
        ):  # more than one if the run was gone on with
            events = EventAccumulator(str(version), {"scalars": 0})
            events.Reload()
            for tag in events.Tags()["scalars"]:
                curves[tag] += events.Scalars(tag)
        began = min(points[0].wall_time for points in curves.values())
        for tag, style in (("train/nme", ":"), ("val/nme", "-")):
            minutes = [(point.wall_time - began) / 60 for point in curves[tag]]
            values = [point.value for point in curves[tag]]
            errors.plot(minutes, values, style, color=colour, label=f"{run.name} {tag}")
            figures[f"{run.name}_{tag.replace('/', '_')}"] = round(curves[tag][-1].value, 3)
        for mark in MARKS:
            below = [point for point in curves["val/nme"] if point.value < mark]
            if below:
                figures[f"{run.name}_minutes_to_{mark:g}"] = round(
                    (below[0].wall_time - began) / 60, 1
                )
        for tag in curves:
            if tag.startswith("lr-"):
                minutes = [(point.wall_time - began) / 60 for point in curves[tag]]
                rates.plot(minutes, [point.value for point in curves[tag]], color=colour)
    errors.set(ylabel="NME, %", yscale="log")
    errors.set_ylim(top=20)
    errors.yaxis.set_major_formatter("{x:g}")
    errors.yaxis.set_minor_formatter("{x:g}")
    errors.grid(alpha=0.3, which="both")
    errors.legend()
    rates.set(xlabel="minutes", ylabel="learning rate")
    figure.tight_layout()
    figure.savefig(told.out, dpi=80)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
