"""Mirror pairs are accepted where the labels prove them, and only there."""

import logging

import numpy as np
import pytest

from fkp.data.mirror_pairs import prove_flips, with_proved_pairs
from fkp.markup import IBUG68, Markup
from fkp.painter.shape_model import ShapeModel

FLIPS = IBUG68.flip_indices


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """800 faces with 68 points, rotated as heads are."""
    model = ShapeModel.load()
    return np.array([model.sample(np.random.default_rng([1, i])) for i in range(800)])


def test_shuffled_points_without_names_recover_their_pairs(
    faces: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    order = np.random.default_rng(0).permutation(68)
    nameless = Markup("nameless", [f"p{k}" for k in range(68)])
    with caplog.at_level(logging.INFO, logger="fkp"):
        proved = with_proved_pairs(faces[:, order], nameless)
    assert proved is not None
    assert (order[proved.flip_indices] == FLIPS[order]).all()
    assert len(caplog.records) == 1

    # The person's right, on the image's left, comes first.
    right, left = (
        np.array([nameless.points.index(pair[side]) for pair in proved.pairs or []])
        for side in (0, 1)
    )
    mean = faces[:, order].mean(0)
    assert (mean[right, 0] < mean[left, 0]).all()


@pytest.mark.parametrize("keep", [[36, 45, 30, 48, 54, 8], [36, 39, 42, 45, 17, 26, 48, 54, 57]])
def test_few_points_and_missing_labels(faces: np.ndarray, keep: list[int]) -> None:
    few = faces[:, keep].copy()
    few[np.random.default_rng(1).random(few.shape[:2]) < 0.1] = np.nan
    flips = prove_flips(few)
    assert flips is not None
    assert flips.tolist() == [keep.index(FLIPS[k]) for k in keep]


@pytest.mark.parametrize(
    "missing", [[48], [36], [45, 54], [16], *([k] for k in range(0, 68, 7) if FLIPS[k] != k)]
)
def test_asymmetric_points_are_not_accepted(faces: np.ndarray, missing: list[int]) -> None:
    assert prove_flips(np.delete(faces, missing, axis=1)) is None


def test_points_of_one_side_are_not_accepted(faces: np.ndarray) -> None:
    assert prove_flips(faces[:, [*range(36, 42), *range(17, 22)]]) is None


@pytest.mark.parametrize("count", [2, 3, 5, 12, 68])
def test_random_points_are_not_accepted(count: int) -> None:
    rng = np.random.default_rng(count)
    assert prove_flips(rng.random((300, count, 2))) is None
    # Nor one random constellation with noise, which has no symmetry.
    constellation = rng.random((1, max(count, 3), 2))
    noise = rng.normal(0, 0.03, (300, max(count, 3), 2))
    assert prove_flips(constellation + noise) is None


def test_few_faces_prove_nothing(faces: np.ndarray) -> None:
    assert prove_flips(faces[:10, [36, 45, 30]]) is None
