"""What is a suggested face worth? 50 labelled faces and 50 suggested ones, beside 50 at random.

    python benchmarks/accuracy/suggest.py [FKP_SHARED/data]

Somebody's own points, mesh12 (pseudo/lfw/mesh12_*.csv), are learnt as a ridge map of the 68 points
that the shipped weights find, from 50 random faces of mesh12_train and 50 more of the rest, and
scored on other people. Each seed starts from other faces. --validate scores on a part of
mesh12_train's people instead of mesh12_test: what the constants of fkp/inference/ranking.py were
chosen on.

Last line, NME in percent: `start_50`, `random_100`, `suggested_100`, `unsure_100` (the lowest
confidence first), `kmeans_100` (the face nearest to the centre of each k-means cluster), `gain`
(random_100 - suggested_100), `gain_std_error` over the seeds, and `random_faces`: as many random
faces give the NME of the 100.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from fkp.console import CONSOLE, track
from fkp.data.labelled_csv import LabelledCsv
from fkp.data.shapes import aligned, onto
from fkp.data.table import FaceTable
from fkp.files.images import read_image
from fkp.geometry import apply, invert, reframed
from fkp.inference.portraits import vectors
from fkp.inference.predictor import Predictor
from fkp.inference.ranking import k_means, rank
from fkp.markup import Markup
from fkp.metrics import nme
from fkp.weights import FILE

sys.path.insert(0, str(Path(__file__).parents[1]))
from sets import last_line, parser  # noqa: E402

# Tikhonov weights that the leave-one-out error chooses from; the mean shape has size 1.
WEIGHTS = 10.0 ** np.arange(-5, 2)
# Fraction of the people that --validate scores on.
HELD_OUT = 0.3

Map = Callable[[np.ndarray], np.ndarray]


@dataclass
class Faces:
    """Labelled faces, and what the shipped weights find in them.

    Args:
        labels: (F, P, 2), IMAGE pixels.
        people: (F,) names.
        points: (F, K, 2), IMAGE pixels.
        confidence: (F,), mean over the points.
        features: (F, D).
    """

    labels: np.ndarray
    people: np.ndarray
    points: np.ndarray
    confidence: np.ndarray
    features: np.ndarray

    def select(self, chosen: np.ndarray) -> Faces:
        """Select faces by indices or a mask."""
        return Faces(*(column[chosen] for column in vars(self).values()))


def find(predictor: Predictor, table: FaceTable) -> Faces:
    """Find the points of labelled faces, in the labels' boxes, and their features."""
    points, confidence, features = [], [], []
    for path, box in track(zip(table.paths, table.boxes, strict=True), "faces", len(table)):
        image = read_image(path, predictor.gray)
        (face,) = predictor(image, box[None])
        boxes, rolls = reframed(face.points[None], box[None], np.zeros(1), predictor.markup)
        crops, _ = predictor.crop(image, boxes, rolls=rolls)
        points.append(face.points)
        confidence.append(face.confidence.mean())
        found = predictor.engine.features(crops)  # type: ignore[attr-defined]
        features.append(crops.ravel()[::97] if found is None else found[0])
    people = np.array(list(table.identity))
    columns = (np.array(column, float) for column in (points, confidence, features))
    return Faces(table.points, people, *columns)


def fit(faces: Faces) -> Callable[[Faces], np.ndarray]:
    """Fit the trainer of own points: faces to a function from faces to their points (F, P, 2).

    The points that the shipped weights find, aligned with their mean shape, are mapped to the
    labels by ridge regression, whose weight has the least leave-one-out error.
    """
    to_mean, mean = aligned(faces.points)
    ridge = _ridge(_flat(apply(to_mean, faces.points)), _flat(apply(to_mean, faces.labels)))

    def predict(others: Faces) -> np.ndarray:
        to_mean = onto(others.points, mean)
        found = ridge(_flat(apply(to_mean, others.points)))
        return apply(invert(to_mean), found.reshape(len(found), -1, 2))

    return predict


def _flat(points: np.ndarray) -> np.ndarray:
    return points.reshape(len(points), -1)


def _ridge(inputs: np.ndarray, outputs: np.ndarray) -> Map:
    """Fit a ridge regression from (F, D) to (F, E)."""
    mean_in, mean_out = inputs.mean(0), outputs.mean(0)
    left, values, right = np.linalg.svd(inputs - mean_in, full_matrices=False)
    projected = left.T @ (outputs - mean_out)

    def left_out(weight: float) -> float:
        shrink = values**2 / (values**2 + weight)
        residual = outputs - mean_out - left @ (shrink[:, None] * projected)
        leverage = (left**2 * shrink).sum(1) + 1 / len(inputs)
        return float(np.mean((residual / (1 - leverage)[:, None]) ** 2))

    best = min(WEIGHTS, key=left_out)
    matrix = right.T @ ((values / (values**2 + best))[:, None] * projected)
    return lambda new: (new - mean_in) @ matrix + mean_out


def choose(way: str, faces: Faces, start: np.ndarray, pool: np.ndarray, count: int) -> np.ndarray:
    """Choose the faces to label next, as indices of `faces`.

    Args:
        way: `suggested`, `unsure` or `kmeans`.
        faces: all that may be used.
        start: indices of those that are labelled.
        pool: indices of the others.
        count: how many.
    """
    order = np.concatenate([pool, start])
    if way == "unsure":
        return pool[np.argsort(faces.confidence[pool])[:count]]
    places = vectors(faces.points[order], faces.features[order])
    if way == "suggested":
        choices = rank(places, faces.confidence[order], count, len(start))
        return pool[[choice.index for choice in choices]]

    places = places[: len(pool)]
    clusters = k_means(places, count, seed=0)
    nearest = []
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        distance = np.linalg.norm(places[members] - places[members].mean(0), axis=1)
        nearest.append(members[distance.argmin()])
    return pool[nearest]


def trial(
    train: Faces, test: Faces, markup: Markup, generator: np.random.Generator, start: int, add: int
) -> dict[str, float]:
    """Score every way to choose, from one random start: row -> NME, percent."""
    order = generator.permutation(len(train.labels))
    first, pool = order[:start], order[start:]

    def score(more: np.ndarray) -> float:
        known = train.select(np.concatenate([first, more]))
        return 100 * float(np.mean(nme(fit(known)(test), test.labels, markup)))

    scores = {f"start_{start}": score(pool[:0])}
    for factor in (1.0, 1.5, 2.0, 3.0):
        # Of several random choices, to have less noise than a single one.
        chosen = [generator.choice(pool, int(factor * add), replace=False) for _ in range(5)]
        row = f"random_{start + int(factor * add)}"
        scores[row] = float(np.mean([score(more) for more in chosen]))
    for way in ("suggested", "unsure", "kmeans"):
        scores[f"{way}_{start + add}"] = score(choose(way, train, first, pool, add))
    return scores


def main() -> None:
    """Print a table and a line of JSON."""
    command = parser(__doc__)
    command.add_argument("--seeds", type=int, default=10)
    command.add_argument("--start", type=int, default=50, help="labelled faces at first")
    command.add_argument("--add", type=int, default=50, help="faces that are then labelled")
    command.add_argument("--validate", action="store_true", help="leave mesh12_test alone")
    options = command.parse_args()

    root = options.data / "pseudo/lfw"
    predictor = Predictor.load(options.ckpt or FILE, device="cpu")
    names = ["train"] if options.validate else ["train", "test"]
    sources = [
        LabelledCsv(str(root), f"mesh12_{name}.csv", markup=str(root / "mesh12.yaml"))
        for name in names
    ]
    found = [find(predictor, source.read()) for source in sources]
    markup = sources[0].markup

    trials: list[dict[str, float]] = []
    for seed in range(options.seeds):
        # Other seeds than those of the test, so that it is a trial of its own.
        generator = np.random.default_rng(seed + 1000 * options.validate)
        train, test = found[0], found[-1]
        if options.validate:
            people = np.unique(train.people)
            some = generator.choice(people, int(HELD_OUT * len(people)), replace=False)
            held_out = np.isin(train.people, some)
            train, test = train.select(~held_out), train.select(held_out)
        trials.append(trial(train, test, markup, generator, options.start, options.add))
    print(last_line(report(trials, options.start, options.add)))


def report(trials: list[dict[str, float]], start: int, add: int) -> dict[str, float]:
    """Print a table of all ways; return the metrics."""
    scores = {row: np.array([trial[row] for trial in trials]) for row in trials[0]}
    random = scores[f"random_{start + add}"]
    table = Table("faces", "NME, %", "less than random", "± standard error")
    errors = {}
    for row, values in scores.items():
        less = random - values
        errors[row] = float(less.std(ddof=1) / np.sqrt(len(less))) if len(less) > 1 else np.nan
        table.add_row(row, f"{values.mean():.3f}", f"{less.mean():+.3f}", f"{errors[row]:.3f}")
    CONSOLE.print(table)

    metrics = {row: float(values.mean()) for row, values in scores.items()}
    suggested = f"suggested_{start + add}"
    metrics["gain"] = metrics[f"random_{start + add}"] - metrics[suggested]
    metrics["gain_std_error"] = errors[suggested]

    # The number of random faces with the same NME, on the curve of random choices.
    curve = [row for row in metrics if row.startswith(("start_", "random_"))]
    heights = [-metrics[row] for row in curve]
    counts = [float(row.rpartition("_")[2]) for row in curve]
    metrics["random_faces"] = float(np.interp(-metrics[suggested], heights, counts))
    return metrics


if __name__ == "__main__":
    main()
