"""How accurate are points of one's own, learnt from 50, 200 and 1000 faces? Beside dlib's trainer.

    python benchmarks/accuracy/own_points.py [FKP_SHARED/data] [--dlib PYTHON] [--yunet FILE]

Two sets of 12 points, each system trained on the same first N faces and the same boxes:
  mesh12  points that are not among the 68: irises, temples, forehead, cheeks, … (pseudo/lfw)
  of68    12 of the 68, of 300-W's training split; scored on its validation split. The shipped
          weights were trained on these points of these photos: here dlib starts from nothing, and
          fkp does not.
mesh12_test is for the published figures alone. --val leaves it alone, for development: at most the
first 700 rows of mesh12_train are trained on, and rows 701 to 1000 scored.

The rows:
  own        python train.py experiment=own_points: the map on top of the shipped weights
  finetuned  the same with steps=300: also finetunes, and keeps the better on people left out
  ridge      a linear map of the 68 points that the shipped weights find
  dlib       dlib.train_shape_predictor with its defaults and an oversampling of 100, 50 and 20;
             for the detector's boxes, another one, trained on these: it depends on them much
  mean       the mean shape, in the face box

The box is the label's, or the detector's that overlaps it most. Last line, NME in percent: `own_50`
with the label's box, `own_detector_50` with the detector's where it found the face, `own_50_s`
seconds of the training command, `own_50_mb` megabytes of its file, `own_50_cv` what the command
itself said; so for each row and N, and with `of68_` in front for the second set.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from rich.table import Table

from fkp.console import CONSOLE, track
from fkp.data.image_cache import face_boxes
from fkp.data.labelled_csv import LabelledCsv
from fkp.data.table import FaceTable
from fkp.detectors import Auto, Detector, YuNet, describe
from fkp.files.images import read_image
from fkp.geometry import centre_and_side, overlap
from fkp.inference.evaluation import SAME_FACE, mean_in_box
from fkp.inference.predictor import Predictor
from fkp.inference.shipped_ridge import ShippedRidge
from fkp.markup import IBUG68, Markup, load_markup
from fkp.metrics import nme

# The modules that the benchmarks share.
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from peers import Peer  # noqa: E402
from sets import last_line, parser, some, source  # noqa: E402

SIZES = (50, 200, 1000)
# With --val the first of mesh12_train are trained on, and the others scored.
TRAINED_ON = 700
OVERSAMPLING = {50: 100, 200: 50, 1000: 20}

# dlib rounds its points to whole pixels, which costs much in faces of 80 pixels: its images are
# enlarged.
ENLARGE = 2

# Spread over the face: jaw and chin, brows, outer eye corners, tip of the nose, corners of mouth.
OF68 = (0, 4, 8, 12, 16, 19, 24, 36, 45, 30, 48, 54)

TITLES = {
    "own": "own_points",
    "finetuned": "own_points, finetuned",
    "ridge": "ridge of 68 points",
    "dlib": "dlib",
    "mean": "mean shape",
}
COLOURS = {"own": "C0", "finetuned": "C4", "ridge": "C2", "dlib": "C3", "mean": "gray"}


@dataclass
class OwnSet:
    """Faces with own points, in a folder that `data=csv` reads.

    Args:
        name: `mesh12` or `of68`.
        folder: of `images/`, `markup.yaml` and `first_N.csv`.
        markup: of the points.
        sizes: the numbers of faces to train on.
        train: faces, of which the first N are trained on.
        detector: of the boxes that an app would have.
        tests: the faces to score, in the label's boxes and in the detector's; the latter without
            the faces that it missed.
    """

    name: str
    folder: Path
    markup: Markup
    sizes: list[int]
    train: FaceTable
    detector: Detector
    tests: dict[str, FaceTable]


@dataclass
class Result:
    """What one system has learnt from N faces.

    Args:
        nme: NME in percent by the box, `label` or `detector`.
        seconds: of the training.
        megabytes: of its file.
        said: NME by the training's own cross-validation, percent.
    """

    nme: dict[str, float]
    seconds: float = math.nan
    megabytes: float = math.nan
    said: float = math.nan


# What finds the points (F, K, 2) of faces in their boxes, with what its training has cost.
System = Callable[[FaceTable], np.ndarray]


class Results:
    """Keep results by set, row and number of faces.

    Args:
        file: to write them to, and to continue from; None for neither.
    """

    def __init__(self, file: Path | None):
        self.file = file
        self.found: dict[tuple[str, str, int], Result] = {}
        if file and file.exists():
            for name, row, size, values in json.loads(file.read_text()):
                self.found[name, row, size] = Result(**values)

    def add(self, key: tuple[str, str, int], measure: Callable[[], Result]) -> None:
        """Measure a result, unless it is known."""
        if key in self.found:
            return
        self.found[key] = measure()
        print(*key, self.found[key], file=sys.stderr)
        if self.file:
            rows = [[*known, vars(result)] for known, result in self.found.items()]
            self.file.write_text(json.dumps(rows))

    def of(self, name: str) -> dict[tuple[str, int], Result]:
        """Return the results of a set, by row and number of faces."""
        known = {
            (row, size): result for (of, row, size), result in self.found.items() if of == name
        }
        order = list(TITLES)
        return dict(sorted(known.items(), key=lambda item: (item[0][1], order.index(item[0][0]))))


def mesh12(data: Path, val: bool) -> tuple[FaceTable, FaceTable, Markup]:
    """Read the points that are not among the 68."""
    root, markup = data / "pseudo/lfw", data / "pseudo/lfw/mesh12.yaml"
    train = LabelledCsv(str(root), "mesh12_train.csv", markup=str(markup)).read()
    if val:
        last = min(TRAINED_ON, len(train) * TRAINED_ON // max(SIZES))
        return train.select(slice(last)), train.select(slice(last, None)), load_markup(str(markup))
    test = LabelledCsv(str(root), "mesh12_test.csv", markup=str(markup)).read()
    return train, test, load_markup(str(markup))


def of68(data: Path) -> tuple[FaceTable, FaceTable, Markup]:
    """Read some of the 68 points, of 300-W's faces in a random order."""
    faces = source("300w", data)
    splits = faces.split(faces.read())
    names = [IBUG68.points[point] for point in OF68]
    eyes = [IBUG68.points[point] for point in IBUG68.eyes]

    tables = []
    for name in ("train", "val"):
        table = splits[name]
        table = table.select(np.random.default_rng(0).permutation(len(table)))
        table.boxes, table.points = face_boxes(table, IBUG68), table.points[:, list(OF68)]
        tables.append(table)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "of68.yaml")
        file.write_text(yaml.safe_dump({"name": "of68", "points": names, "pair": eyes}))
        return (*tables, load_markup(str(file)))


def detected(faces: FaceTable, detector: Detector) -> FaceTable:
    """Replace the boxes by those that a detector finds, without the faces that it misses."""
    boxes = np.full((len(faces), 4), np.nan)
    for i in track(range(len(faces)), "detecting", len(faces)):
        found, _ = detector(read_image(faces.paths[i]))
        overlaps = [overlap(box, faces.boxes[i]) for box in found]
        if overlaps and max(overlaps) >= SAME_FACE:
            boxes[i] = found[int(np.argmax(overlaps))]
    rows = [f"{row}, detected" for row in faces.rows]
    table = FaceTable(faces.paths, faces.points, faces.identity, rows, boxes=boxes)
    return table.select(np.isfinite(boxes).all(1))


def written(
    name: str,
    folder: Path,
    read: tuple[FaceTable, FaceTable, Markup],
    detector: Detector,
    quick: bool,
) -> OwnSet:
    """Write a set's training faces to a folder, as a user of `data=csv` has them."""
    train, test, markup = read
    sizes = sorted({min(size, len(train)) for size in (SIZES[:1] if quick else SIZES)})
    (folder / "images").mkdir(parents=True)
    names = [markup.points[point] for point in markup.eyes]
    content = {"name": name, "points": list(markup.points), "pair": names}
    (folder / "markup.yaml").write_text(yaml.safe_dump(content))

    axes = [f"{point}_{axis}" for point in markup.points for axis in "xy"]
    lines = [",".join(["image", "identity", *axes, *(f"box_{e}" for e in EDGES)])]
    for i in range(max(sizes)):
        file = f"{i:04d}{train.paths[i].suffix}"
        shutil.copy(train.paths[i], folder / "images" / file)
        values = [*train.points[i].ravel(), *train.boxes[i]]
        person = train.identity[i].replace(",", " ").replace('"', " ")
        lines.append(",".join([file, person, *(f"{value:.3f}" for value in values)]))
    for size in sizes:
        (folder / f"first_{size}.csv").write_text("\n".join(lines[: size + 1]) + "\n")
    return OwnSet(name, folder, markup, sizes, train, detector, {"label": test})


EDGES = ("left", "top", "right", "bottom")


def score(own: OwnSet, system: System) -> dict[str, float]:
    """Compute the NME of a system, percent, with each kind of box."""
    return {
        box: 100 * float(np.mean(nme(system(faces), faces.points, own.markup)))
        for box, faces in own.tests.items()
    }


def of_fkp(own: OwnSet, size: int, *overrides: str) -> Result:
    """Train by the documented command, and score its checkpoint."""
    run = own.folder / "_".join([f"run_{size}", *overrides]).replace("=", "_")
    data = {
        "data.root": own.folder,
        "data.file": f"first_{size}.csv",
        "data.markup": own.folder / "markup.yaml",
        "run_dir": run,
    }
    command = [sys.executable, str(ROOT / "train.py"), "experiment=own_points", "data=csv"]
    command += [f"{key}={value}" for key, value in data.items()] + list(overrides)

    # A cache of its own, so that the decoding of the images counts.
    quiet = os.environ | {"FKP_CACHE": str(run.with_suffix(".cache"))}
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=quiet)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    for line in done.stdout.splitlines():
        if line.startswith("own points"):
            CONSOLE.print(f"{own.name}, {size} faces: {line.removeprefix('own points').strip()}")

    ckpt = run / "checkpoints/best.ckpt"
    said = json.loads((run / "metrics.json").read_text()).get("val/best_nme", math.nan)
    predictor = Predictor.load(ckpt, device="cpu")

    def system(faces: FaceTable) -> np.ndarray:
        found = predictor.stream(faces.paths, [box[None] for box in faces.boxes])
        return np.array([face.points for (face,) in found], float)

    return Result(score(own, system), seconds, ckpt.stat().st_size / 1e6, said)


def of_ridge(own: OwnSet, size: int) -> Result:
    """Fit the linear map of the 68 points, and score it; it is not saved to a file."""
    began = time.perf_counter()
    system = ShippedRidge()(own.train.select(slice(size)))
    seconds = time.perf_counter() - began
    return Result(score(own, system), seconds)


def of_mean(own: OwnSet, size: int) -> Result:
    """Score the mean shape of the training faces in the face box."""
    mean = mean_in_box(own.train.select(slice(size)), own.markup)

    def system(faces: FaceTable) -> np.ndarray:
        x, y, side = centre_and_side(faces.boxes)
        return mean * side[:, None, None] + np.stack([x, y], -1)[:, None]

    return Result(score(own, system))


def of_dlib(own: OwnSet, size: int, dlib: Peer) -> Result:
    """Train dlib's shape predictor on the boxes that it is to be used with, and score it."""
    model, scores, seconds = own.folder / f"dlib_{size}.dat", {}, []
    train = own.train.select(slice(size))
    for box, faces in own.tests.items():
        known = train if box == "label" else detected(train, own.detector)
        answer = dlib.ask(
            train=list(_requests(known)),
            tests=list(_requests(faces)),
            model=str(model),
            oversampling=OVERSAMPLING[min(OVERSAMPLING, key=lambda known: abs(known - size))],
            enlarge=ENLARGE,
        )
        points = np.array(answer["points"], float)
        scores[box] = 100 * float(np.mean(nme(points, faces.points, own.markup)))
        seconds.append(answer["train_s"])
    return Result(scores, seconds[0], model.stat().st_size / 1e6)


def _requests(faces: FaceTable) -> Iterator[dict[str, object]]:
    """Yield faces as the peer takes them."""
    for path, box, points in zip(faces.paths, faces.boxes, faces.points, strict=True):
        yield {"path": str(path), "box": box.tolist(), "points": points.tolist()}


def report(own: OwnSet, results: dict[tuple[str, int], Result]) -> dict[str, float]:
    """Print the table of a set; return the metrics."""
    total, found = (len(own.tests[box]) for box in ("label", "detector"))
    title = f"{own.name}: NME in % on {total} faces, of which the detector missed {total - found}"
    columns = ("label's box", "detector", "said by itself", "seconds", "MB")
    table = Table("faces", "system", *columns, title=title)
    metrics, prefix = {f"{own.name}_missed": float(total - found)}, ""
    if own.name != "mesh12":
        prefix = f"{own.name}_"
    for (row, size), result in results.items():
        values = [result.nme["label"], result.nme["detector"]]
        values += [result.said, result.seconds, result.megabytes]
        cells = [f"{value:.2f}" if math.isfinite(value) else "–" for value in values]
        table.add_row(str(size), TITLES[row], *cells)

        names = [f"{row}_{size}", f"{row}_detector_{size}"]
        names += [f"{row}_{size}_{unit}" for unit in ("cv", "s", "mb")]
        known = zip(names, values, strict=True)
        metrics |= {prefix + name: value for name, value in known if math.isfinite(value)}
    CONSOLE.print(table)
    return metrics


def plot(results: dict[str, dict[tuple[str, int], Result]], out: Path) -> None:
    """Plot the NME in the label's box against the number of faces, a panel for each set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    titles = {
        "mesh12": "12 points that are not among the 68",
        "of68": "12 of the 68 points",
    }
    figure, axes = pyplot.subplots(1, len(results), figsize=(10, 4), squeeze=False)
    for axis, (name, found) in zip(axes.flat, results.items(), strict=True):
        for row in dict.fromkeys(row for row, _ in found):
            curve = {size: result.nme["label"] for (of, size), result in found.items() if of == row}
            line = {"linestyle": ":"} if row == "mean" else {"marker": "o"}
            style = {"color": COLOURS[row], "label": TITLES[row], **line}
            axis.plot(list(curve), list(curve.values()), **style)
        sizes = sorted({size for _, size in found})
        axis.set_xscale("log")
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.set_xticks([], minor=True)
        axis.set(title=titles[name], xlabel="labelled faces", ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("NME on other people, %")
    lines, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(lines, names, loc="lower center", ncols=len(names), fontsize=9)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(out, dpi=90)


@contextmanager
def trainer_of_dlib(python: str | None) -> Iterator[Peer | None]:
    """Start dlib's trainer, if its interpreter has it."""
    peer = None
    try:
        peer = Peer("dlib_trainer", python) if python else None
    except (RuntimeError, OSError) as error:
        print(f"dlib: skipped; {error}; give a Python that has it by --dlib", file=sys.stderr)
    try:
        yield peer
    finally:
        if peer:
            peer.close()


def read_options() -> argparse.Namespace:
    """Read the command line."""
    command = parser(__doc__)
    command.add_argument("--dlib", default=sys.executable, help="a Python that has dlib")
    command.add_argument("--yunet", help="YuNet's model; else from the cache, or a Haar cascade")
    command.add_argument("--val", action="store_true", help="leave mesh12_test alone")
    command.add_argument("--quick", action="store_true", help="50 faces, mesh12, no dlib")
    command.add_argument("--rows", nargs="+", default=list(TITLES), choices=list(TITLES))
    command.add_argument("--steps", type=int, default=300, help="of the finetuning")
    command.add_argument("--results", type=Path, help="a file to continue after an interruption")
    command.add_argument("--tests", type=int, help="faces to score, at most")
    command.add_argument("--out", type=Path, help="the picture")
    return command.parse_args()


def main() -> None:
    """Print a table for each set, and a line of JSON."""
    options = read_options()
    detector = YuNet(options.yunet) if options.yunet else Auto()
    read = {"mesh12": mesh12(options.data, options.val)}
    if not options.quick:
        read["of68"] = of68(options.data)
    results = Results(options.results)
    with (
        tempfile.TemporaryDirectory() as folder,
        trainer_of_dlib(None if options.quick else options.dlib) as dlib,
    ):
        sets = {}
        for name, tables in read.items():
            own = sets[name] = written(name, Path(folder, name), tables, detector, options.quick)
            if options.tests:
                own.tests["label"] = some(own.tests["label"], options.tests)
            own.tests["detector"] = detected(own.tests["label"], detector)

        steps = f"steps={options.steps}"
        ways: dict[str, Callable[[OwnSet, int], Result]] = {
            "own": of_fkp,
            "finetuned": lambda own, size: of_fkp(own, size, steps),
            "ridge": of_ridge,
            "dlib": lambda own, size: of_dlib(own, size, dlib),
            "mean": of_mean,
        }
        for row in options.rows:
            for own in sets.values():
                for size in own.sizes if dlib or row != "dlib" else ():
                    results.add((own.name, row, size), lambda: ways[row](own, size))  # noqa: B023

    metrics: dict[str, float] = {}
    for own in sets.values():
        metrics |= report(own, results.of(own.name))
    CONSOLE.print(f"detector: {describe(detector)}")
    if options.out:
        plot({name: results.of(name) for name in sets}, options.out)
    print(last_line(metrics))


if __name__ == "__main__":
    main()
