"""What is a suggested face worth? 50 labelled faces and 50 suggested ones, beside 50 at random.

    python benchmarks/accuracy/suggest.py [FKP_SHARED/data]

Somebody's own points, mesh12 (pseudo/lfw/mesh12_*.csv), are learnt as experiment=own_points does
(`fkp.own_points`), from 50 random faces of mesh12_train and 50 more of the rest, and scored on
other people: in the label's box, as the mean of the crop and its mirror image. Each seed starts
from other faces. --validate scores on a part of mesh12_train's people instead of mesh12_test; the
constants of fkp/inference/ranking.py were chosen on these, with a ridge map of the points alone.

With the default options the gain is 0.016 ± 0.012 (start 3.15, random 2.90, suggested 2.88): none
that six seeds can tell from nil. To a ridge map of the points alone, which stood for the trainer
here before, 50 suggested faces were worth 72 random ones.

Last line, NME in percent: `start_50`, `random_100`, `suggested_100`, `gain` (random_100 -
suggested_100), `gain_std_error` over the seeds, and `random_faces`: as many random faces give the
NME of the 100. --all adds `unsure_100` (the lowest confidence first), `kmeans_100` (the face
nearest to the centre of each k-means cluster), and more random faces.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from rich.table import Table

from fkp.callbacks import BATCH_SIZE
from fkp.codecs import Located
from fkp.console import CONSOLE, track
from fkp.data.datamodule import FacesDataModule
from fkp.data.table import FaceTable
from fkp.files.images import read_image
from fkp.geometry import reframed
from fkp.inference.portraits import vectors
from fkp.inference.predictor import Predictor
from fkp.inference.ranking import k_means, rank
from fkp.inference.torch_engine import rebuild
from fkp.metrics import nme
from fkp.module import to_crop_space
from fkp.own_points import fit
from fkp.point_map import PointMap
from fkp.runs import config
from fkp.weights import FILE, shipped

sys.path.insert(0, str(Path(__file__).parents[1]))
from sets import CONF, last_line, parser  # noqa: E402

# Fraction of the people that --validate scores on.
HELD_OUT = 0.3
# Random choices of each seed, to have less noise than a single one.
DRAWS = 2
# Random faces that --all also adds, in multiples of --add.
MORE = (1.5, 2.0, 3.0)


@dataclass
class Faces:
    """What the shipped weights find in faces.

    Args:
        points: (F, K, 2), IMAGE pixels.
        confidence: (F,), mean over the points.
        features: (F, D).
    """

    points: np.ndarray
    confidence: np.ndarray
    features: np.ndarray


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
        features.append(predictor.engine.features(crops)[0])  # type: ignore[attr-defined]
    return Faces(*(np.array(column, float) for column in (points, confidence, features)))


@dataclass
class Trainer:
    """Train own points on some faces, and score them on others.

    Args:
        data: all faces, decoded once.
        weights: of the heat map network that finds the points which are mapped.
    """

    data: FacesDataModule
    weights: Path

    def __post_init__(self) -> None:
        self.trunk, self.recipe = rebuild(self.weights)

    def score(self, known: np.ndarray, test: np.ndarray) -> float:
        """Fit a new map to known faces, and return its mean NME on test faces, percent."""
        markup = self.data.source.markup
        codec = self.recipe.build_codec()
        network = PointMap(len(markup.points), self.trunk, codec).eval()  # type: ignore[arg-type]
        fit(network, self.data.select(known), markup)

        dataset, errors = self.data.select(test), []
        for faces in torch.arange(len(dataset)).split(BATCH_SIZE):
            batch = dataset.finish(dataset.__getitems__(faces.tolist()))
            points = _predict(network, batch["image"], dataset.flip_indices)
            label = to_crop_space(batch["points"], batch["to_crop"])
            errors.append(nme(points, label, markup, batch["side"]))
        return 100 * float(torch.cat(errors).nanmean())


@torch.no_grad()
def _predict(network: PointMap, images: torch.Tensor, flip: np.ndarray | None) -> torch.Tensor:
    """Average the points of crops and of their mirror images: (B, K, 2), CROP pixels."""
    output = network(images)  # (B, K, 3), from the crop's centre
    if flip is not None:
        output = (output + network(images.flip(-1))[:, flip] * output.new_tensor([-1, 1, 1])) / 2
    return Located(network.codec.size, network.codec.unit).decode(output)[0]


def choose(way: str, faces: Faces, start: np.ndarray, pool: np.ndarray, count: int) -> np.ndarray:
    """Choose the faces to label next: indices of `faces`.

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
    trainer: Trainer,
    faces: Faces,
    train: np.ndarray,
    test: np.ndarray,
    generator: np.random.Generator,
    options: argparse.Namespace,
) -> dict[str, float]:
    """Score the ways to choose, from one random start: row -> NME, percent.

    Args:
        trainer: fits and scores.
        faces: what was found in all faces for training.
        train: indices of those that may be labelled.
        test: indices of the faces that are scored.
        generator: of the random choices.
        options: of the command line.
    """
    start, add = options.start, options.add
    order = generator.permutation(train)
    first, pool = order[:start], order[start:]

    def score(more: np.ndarray) -> float:
        return trainer.score(np.concatenate([first, more]), test)

    scores = {f"start_{start}": score(pool[:0])}
    for factor in (1.0, *(MORE if options.all else ())):
        count = int(factor * add)
        chosen = [generator.choice(pool, count, replace=False) for _ in range(DRAWS)]
        scores[f"random_{start + count}"] = float(np.mean([score(more) for more in chosen]))
    for way in ("suggested", "unsure", "kmeans") if options.all else ("suggested",):
        scores[f"{way}_{start + add}"] = score(choose(way, faces, first, pool, add))
    return scores


def decoded(root: Path) -> FacesDataModule:
    """Decode the faces of mesh12, as experiment=own_points does."""
    overrides = [
        "experiment=own_points",
        "data=csv",
        f"data.root={root}",
        "data.file=mesh12_train.csv",
        "data.test_file=mesh12_test.csv",
        "data.protocol=official",
        f"data.markup={root / 'mesh12.yaml'}",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        data: FacesDataModule = config.build(compose("train", overrides).datamodule)
    data.setup()
    return data


def main() -> None:
    """Print a table and a line of JSON."""
    command = parser(__doc__)
    command.add_argument("--seeds", type=int, default=6)
    command.add_argument("--start", type=int, default=50, help="labelled faces at first")
    command.add_argument("--add", type=int, default=50, help="faces that are then labelled")
    command.add_argument("--all", action="store_true", help="also other ways to choose")
    command.add_argument("--validate", action="store_true", help="leave mesh12_test alone")
    options = command.parse_args()

    # Faces are numbered through mesh12_train (train and val), and then mesh12_test.
    weights = Path(options.ckpt) if options.ckpt else shipped(FILE)
    data = decoded(options.data.resolve() / "pseudo/lfw")
    count = len(data.splits["train"]) + len(data.splits["val"])
    total = count + len(data.splits["test"])
    table = data.select(np.arange(count)).table
    faces = find(Predictor.load(weights, device="cpu"), table)
    trainer = Trainer(data, weights)

    trials: list[dict[str, float]] = []
    for seed in track(range(options.seeds), "seeds", options.seeds):
        # Other seeds than those of the test, so that it is a trial of its own.
        generator = np.random.default_rng(seed + 1000 * options.validate)
        train, test = np.arange(count), np.arange(count, total)
        if options.validate:
            people = np.unique(list(table.identity))
            some = generator.choice(people, int(HELD_OUT * len(people)), replace=False)
            held_out = np.isin(list(table.identity), some)
            train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        trials.append(trial(trainer, faces, train, test, generator, options))
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

    # The number of random faces with the same NME, which falls about linearly with the logarithm
    # of their number.
    curve = [row for row in metrics if row.startswith(("start_", "random_"))]
    logs = [np.log(float(row.rpartition("_")[2])) for row in curve]
    slope, offset = np.polyfit(logs, [metrics[row] for row in curve], 1)
    metrics["random_faces"] = float(np.exp((metrics[suggested] - offset) / slope))
    return metrics


if __name__ == "__main__":
    main()
