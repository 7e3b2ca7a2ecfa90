"""Learning curve: how the error on unseen people falls with the number of training faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fkp.console import track
from fkp.data.folds import dealt, ordered
from fkp.data.framing import boxed, measured
from fkp.data.image_cache import face_boxes
from fkp.data.table import FaceTable, Source
from fkp.errors import FkpError
from fkp.geometry import centre_and_side
from fkp.markup import Markup
from fkp.metrics import nme
from fkp.power_law import PowerLaw, fit

# What trains: faces with boxes -> what predicts the points (F, K, 2) of others, IMAGE pixels.
Fit = Callable[[FaceTable], Callable[[FaceTable], np.ndarray]]

SPAN = 8  # the smallest number of faces is this part of the largest, but at least so many:
FEWEST = 10
LEAST = 3  # numbers of faces to which a law can be fitted
DRAWS, LEVEL = 1000, 0.95  # of the bootstrap


@dataclass
class LearningCurve:
    """The errors of trainings on more and more faces, and the law that they follow.

    Args:
        faces: number of faces in the set.
        sizes: (S,) numbers of training faces, the last of them all that a fold leaves.
        errors: (S, R, F) NME in percent of each face of the set, by R trainings without its fold.
        identity: (F,) names of people.
    """

    faces: int
    sizes: np.ndarray
    errors: np.ndarray
    identity: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """(S,) mean NME over trainings and faces, percent."""
        return self.errors.mean((1, 2))

    @property
    def law(self) -> PowerLaw:
        """The power law of the means."""
        return fit(self.sizes, self.means)

    def laws(self, seed: int = 0) -> tuple[np.ndarray, PowerLaw]:
        """Fit laws to bootstrap samples of people and of trainings.

        Returns:
            means (D, S) of the samples, and their laws.
        """
        _, person = np.unique(self.identity.astype(str), return_inverse=True)
        people, repeats = person.max() + 1, self.errors.shape[1]
        totals = self.errors @ np.eye(people)[person]  # (S, R, P)
        counts = np.bincount(person)

        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(people, np.full(people, 1 / people), DRAWS)  # (D, P)
        often = rng.multinomial(repeats, np.full(repeats, 1 / repeats), DRAWS) / repeats  # (D, R)
        sums = np.einsum("dp,srp,dr->ds", drawn, totals, often, optimize=True)
        means = sums / (drawn @ counts)[:, None]
        return means, fit(self.sizes, means)

    def expected(self, multiples: list[int]) -> dict[str, float]:
        """Extrapolate to multiples of the faces: NME and its relative gain, with 95 % intervals."""
        law, (_, laws) = self.law, self.laws()
        now, now_drawn = law(self.faces), laws(self.faces)
        record = {"nme": float(now)} | _bounds("nme", now_drawn)
        for multiple in multiples:
            then, drawn = law(self.faces * multiple), laws(self.faces * multiple)
            gain, name = 100 * (1 - drawn / now_drawn), f"{multiple}x"
            record |= {f"nme_{name}": float(then)} | _bounds(f"nme_{name}", drawn)
            record |= {f"gain_{name}_pct": float(100 * (1 - then / now))}
            record |= _bounds(f"gain_{name}_pct", gain)
        return record


def _bounds(name: str, values: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {f"{name}_low": float(low), f"{name}_high": float(high)}


def measure(
    train: Fit, source: Source, folds: int = 5, count: int = 6, repeats: int = 3, seed: int = 0
) -> LearningCurve:
    """Train on nested subsets of the people, and predict the faces of the fold left out.

    Every face is tested on by trainings of each size, so that all points of the curve are measured
    on the same faces.

    Args:
        train: to measure.
        source: of the faces.
        folds: of the people.
        count: numbers of training faces, evenly spaced on a logarithmic scale.
        repeats: random orders of the people for each fold.
        seed: of the orders.

    Raises:
        FkpError: bad rows, or too few faces or people.
    """
    table, markup = _boxed(source)
    fold_of = dealt(table.identity, folds)
    left = [int((fold_of != fold).sum()) for fold in range(folds)]
    sizes = _sizes(min(left), count)
    if len(sizes) < LEAST or len(set(fold_of.tolist())) < folds:
        raise FkpError(
            f"{len(table)} faces of {len(set(table.identity))} people are too few for a learning "
            f"curve of {folds} folds: label at least {2 * FEWEST * folds // (folds - 1)} faces",
            key="data.folds",
        )

    sides = centre_and_side(table.boxes)[2]
    errors = np.full((len(sizes), repeats, len(table)), np.nan)
    steps = [(fold, repeat) for fold in range(folds) for repeat in range(repeats)]
    for fold, repeat in track(steps, f"training on {sizes[0]} to {sizes[-1]} faces", len(steps)):
        test = np.flatnonzero(fold_of == fold)
        rest = table.select(fold_of != fold)
        order = ordered(rest.identity, f"{seed} {fold} {repeat} ")
        tested = table.select(test)
        for i, size in enumerate(sizes):
            points = train(rest.select(order[:size]))(tested)
            errors[i, repeat, test] = nme(points, tested.points, markup, sides[test])

    scored = np.isfinite(errors).all((0, 1))
    identity = np.array(list(table.identity), object)
    return LearningCurve(len(table), sizes, 100 * errors[..., scored], identity[scored])


def _boxed(source: Source) -> tuple[FaceTable, Markup]:
    """Read the faces, and give each its box."""
    table = source.read()
    markup = source.markup = measured(table, source.markup)
    table = boxed(table, markup)
    table.boxes = face_boxes(table, markup).astype(float)
    return table.select(np.isfinite(table.boxes).all(1)), markup


def _sizes(largest: int, count: int) -> np.ndarray:
    """Return numbers of training faces, evenly spaced on a logarithmic scale."""
    least = max(FEWEST, largest // SPAN)
    if least >= largest:
        return np.zeros(0, int)
    return np.unique(np.geomspace(least, largest, count).round().astype(int))
