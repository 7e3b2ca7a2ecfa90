"""Test the learning curve: unseen people, nested subsets, a known law, and the ridge map."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fkp.data.table import FaceTable, Fault, Source
from fkp.errors import FkpError
from fkp.face import Face
from fkp.inference import learning_curve, shipped_ridge
from fkp.markup import IBUG68

COUNT = 60


class Set(Source):
    """Faces of two photos a person, each with a box."""

    protocol, markup = "identity", IBUG68

    def __init__(self, count: int = COUNT):
        rng = np.random.default_rng(0)
        names = [f"{i}.png" for i in range(count)]
        people = [f"person {i // 2}" for i in range(count)]
        points = 100 + 60 * rng.random((count, 68, 2))
        boxes = np.tile([90.0, 90, 170, 170], (count, 1))
        self.faces = FaceTable([Path(n) for n in names], points, people, names, boxes=boxes)

    def survey(self) -> tuple[FaceTable, list[Fault]]:
        return self.faces, []


class Law:
    """A training whose error is a known function of the number of faces."""

    def __init__(self) -> None:
        self.trained: list[set[str]] = []
        self.people: list[tuple[set[str], set[str]]] = []

    def __call__(self, faces: FaceTable) -> Callable[[FaceTable], np.ndarray]:
        self.trained.append(set(faces.rows))

        def predict(others: FaceTable) -> np.ndarray:
            self.people.append((set(faces.identity), set(others.identity)))
            right, left = IBUG68.eyes
            unit = np.linalg.norm(others.points[:, right] - others.points[:, left], axis=1)
            error = 0.02 + 0.3 * len(faces) ** -0.5
            return others.points + np.stack([error * unit, 0 * unit], 1)[:, None]

        return predict


def test_a_known_law_is_measured_on_unseen_people_with_nested_subsets() -> None:
    train, source = Law(), Set()
    curve = learning_curve.measure(train, source, folds=3, count=5, repeats=2)
    assert curve.sizes[0] == 10 and curve.sizes[-1] == 40 and curve.faces == COUNT
    assert curve.means == pytest.approx(2 + 30 * curve.sizes**-0.5)

    expected = curve.expected([2])
    assert expected["nme"] == pytest.approx(2 + 30 * COUNT**-0.5)
    assert expected["nme_2x"] == pytest.approx(2 + 30 * (2 * COUNT) ** -0.5)
    assert expected["nme_2x_low"] <= expected["nme_2x"] + 1e-9
    assert expected["nme_2x_high"] >= expected["nme_2x"] - 1e-9
    gain = 100 * (1 - expected["nme_2x"] / expected["nme"])
    assert expected["gain_2x_pct"] == pytest.approx(gain)

    assert not any(seen & unseen for seen, unseen in train.people)
    for small, large in zip(train.trained, train.trained[1:], strict=False):
        assert small < large or len(large) == 10  # the next order begins
    assert len(set(map(frozenset, train.trained))) == 3 * 2 * 4 + 3  # all of a fold are the same


def test_too_few_faces_or_people_are_refused() -> None:
    for source, folds in ((Set(12), 3), (Set(60), 31)):
        with pytest.raises(FkpError) as refused:
            learning_curve.measure(Law(), source, folds=folds)
        assert refused.value.key == "data.folds"


class Points:
    """A predictor that knows the 68 points of each file."""

    def __init__(self, points: dict[Path, np.ndarray]):
        self.points, self.calls = points, 0

    def __call__(self, image: Path, boxes: np.ndarray) -> list[Face]:
        self.calls += 1
        return [Face(self.points[image], np.ones(68, np.float32), boxes[0], 1.0)]


def test_a_linear_map_of_the_points_is_found_again_also_where_labels_are_missing() -> None:
    rng = np.random.default_rng(1)
    source = Set(200)
    table = source.faces
    mean, modes = rng.random((68, 2)), rng.normal(0, 0.05, (6, 68, 2))
    shapes = mean + np.einsum("fm,mkd->fkd", rng.normal(0, 1, (200, 6)), modes)
    angle, scale = rng.uniform(-0.5, 0.5, 200), rng.uniform(50, 200, 200)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1)
    found = np.einsum("fij,fkj->fki", turn.reshape(-1, 2, 2) * scale[:, None, None], shapes)

    # Each new point lies between three of the 68; a fifth of the labels is missing.
    mix = np.zeros((5, 68))
    for row in mix:
        row[rng.choice(68, 3, False)] = 0.5, 0.7, -0.2
    table.points = np.einsum("pk,fkd->fpd", mix, found)
    complete = table.points.copy()
    table.points[rng.random((200, 5)) < 0.2] = np.nan

    predictor = Points(dict(zip(table.paths, found.astype(np.float32), strict=True)))
    fit = shipped_ridge.ShippedRidge(predictor)  # type: ignore[arg-type]
    train, test = table.select(slice(0, 150)), table.select(slice(150, 200))
    points = fit(train)(test)
    assert np.abs(points - complete[150:]).max() < 0.01 * scale.mean()

    fit(train)(test)
    assert predictor.calls == 200  # once a face
