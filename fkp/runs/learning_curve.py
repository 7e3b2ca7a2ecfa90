"""Answer "is it worth labelling more?": the function behind `python -m fkp.learning_curve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from fkp.errors import FkpError
from fkp.runs import command_line, config
from fkp.runs.cross_validation import FOLD

if TYPE_CHECKING:
    from fkp.inference.learning_curve import LearningCurve

SIZE = "datamodule.train_faces"
FOLDS = 5  # unless data.folds says otherwise
MULTIPLES = [2, 4]  # of the faces, to which the curve is extrapolated
WORTH = 5.0  # percent: the gain of twice the faces that is called worth the labels


@command_line.main("learning_curve")
def learning_curve(cfg: DictConfig) -> None:
    """Print and draw the learning curve of a data set; the last line of the output is JSON.

    Args:
        cfg: of conf/learning_curve.yaml.

    Raises:
        FkpError: a value, file or folder that a user can correct.
    """
    from fkp.console import print_line, relative_path
    from fkp.inference import learning_curve as curves
    from fkp.runs import results

    if cfg.sweep is not None:
        curve = of_sweep(Path(cfg.sweep))
    else:
        source = config.build(cfg.data)
        folds = source.folds or FOLDS
        train = config.build(cfg.fit)
        curve = curves.measure(train, source, folds, cfg.sizes, cfg.repeats, cfg.seed)

    # Print
    rows = {
        str(size): {"NME": float(mean), "law": float(curve.law(size))}
        for size, mean in zip(curve.sizes, curve.means, strict=True)
    }
    results.print_metrics(rows, "NME on unseen people by training faces")
    record = curve.expected(MULTIPLES)
    print_line(answer(curve.faces, record))

    # Save
    law = {name: float(getattr(curve.law, name)) for name in ("a", "b", "c")}
    record = {"faces": curve.faces, **record, **law}
    points = {"sizes": curve.sizes.tolist(), "means": curve.means.round(4).tolist()}
    text = results.as_json(record | points, indent=1) + "\n"
    Path(cfg.run_dir, "learning_curve.json").write_text(text, encoding="utf-8")
    image = Path(cfg.run_dir, "learning_curve.png")
    if draw(curve, image):
        print_line(f"curve       {relative_path(image)}")
    else:
        print_line('curve       not drawn: pip install -e ".[plot]"')
    print(results.as_json(record))


def of_sweep(folder: Path) -> LearningCurve:
    """Read the learning curve of trainings by `train.py`, with the seeds as repeats.

    Args:
        folder: of a sweep over `datamodule.train_faces` and, by `data.folds`, over the folds.

    Raises:
        FkpError: it is no such sweep, it is not finished, or a job has not written its test faces.
    """
    import numpy as np
    import pandas as pd

    from fkp.inference.learning_curve import LEAST, LearningCurve
    from fkp.runs import fold_results, sweep_results

    jobs = sweep_results.read(folder).jobs
    if not {SIZE, FOLD} <= set(jobs) or len(set(jobs[SIZE])) < LEAST:
        raise FkpError(
            f"{folder}: no sweep of folds over at least {LEAST} values of {SIZE}", key="sweep"
        )
    if (left := int((jobs["state"] != "finished").sum())) > 0:
        raise FkpError(f"{folder}: {left} of {len(jobs)} jobs are not finished", key="sweep")

    # A table of all faces for each size and seed, in the same order.
    tables: dict[int, list[pd.DataFrame]] = {}
    for _, group in jobs.groupby([SIZE, *(["seed"] if "seed" in jobs else [])]):
        of_folds = [fold_results.faces_of(folder / n) for n in group.sort_values(FOLD)["folder"]]
        size = int(group[SIZE].iloc[0])
        tables.setdefault(size, []).append(pd.concat(of_folds, ignore_index=True))

    first = next(iter(tables.values()))[0]
    alike = [table for of_size in tables.values() for table in of_size]
    counts = {len(of_size) for of_size in tables.values()}
    if first.empty or len(counts) > 1 or not all(t["face"].equals(first["face"]) for t in alike):
        raise FkpError(
            f"{folder}: the jobs were not tested on the same faces, or wrote no "
            f"{fold_results.FACES}; all need callbacks.test_faces, the same data and seeds",
            key="sweep",
        )

    errors = np.array([[t["nme"] for t in tables[size]] for size in sorted(tables)], float)
    scored = np.isfinite(errors).all((0, 1))
    identity = first["identity"].to_numpy(object)[scored]
    return LearningCurve(len(first), np.array(sorted(tables)), errors[..., scored], identity)


def answer(faces: int, record: dict[str, float]) -> str:
    """Say in one sentence whether more labels are worth it.

    Args:
        faces: in the set.
        record: of `LearningCurve.expected`.
    """
    parts = []
    for multiple in MULTIPLES:
        nme, low, high = (record[f"nme_{multiple}x{end}"] for end in ("", "_low", "_high"))
        gain = record[f"gain_{multiple}x_pct"]
        parts.append(
            f"{faces * multiple} faces {nme:.2f} (95 % {low:.2f} – {high:.2f}), {gain:.0f} % less"
        )
    low, high = (record[f"gain_{MULTIPLES[0]}x_pct_{end}"] for end in ("low", "high"))
    verdict = "may be worth it"
    if low > WORTH:
        verdict = "is worth it"
    elif high < WORTH:
        verdict = "is hardly worth it"
    return (
        f"All {faces} faces give an NME of {record['nme']:.2f}, {', and '.join(parts)}: labelling "
        f"more {verdict}."
    )


def draw(curve: LearningCurve, file: Path) -> bool:
    """Draw the measured errors, the law and its extrapolation; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    import numpy as np

    from fkp.files.images import write_image

    means, laws = curve.laws()
    law, most = curve.law, curve.faces * MULTIPLES[-1]
    inside = np.geomspace(curve.sizes[0], curve.sizes[-1], 50)
    beyond = np.geomspace(curve.sizes[-1], most, 50)

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes: Any = figure.subplots()
    low, high = np.quantile([laws(size) for size in beyond], [0.025, 0.975], axis=1)
    axes.fill_between(beyond, low, high, color="C0", alpha=0.2, lw=0, label="95 % interval")
    axes.plot(inside, [law(size) for size in inside], "C0", label="power law")
    axes.plot(beyond, [law(size) for size in beyond], "C0--", label="extrapolated")

    bars = np.abs(np.quantile(means, [0.025, 0.975], axis=0) - curve.means)
    axes.errorbar(curve.sizes, curve.means, bars, fmt="C1o", capsize=3, label="measured")
    axes.axvline(curve.faces, color="gray", lw=1, ls=":", label=f"all {curve.faces} faces")

    axes.set(xscale="log", xlabel="training faces", ylabel="NME on unseen people, %")
    ticks = [*curve.sizes[:-1:2], *(curve.faces * multiple for multiple in (1, *MULTIPLES))]
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.grid(color="#ddd")
    axes.legend()

    write_image(file, _pixels(figure))
    return True


def _pixels(figure: Any) -> Any:
    """Render a figure as an RGB image (H, W, 3) uint8."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(130)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
