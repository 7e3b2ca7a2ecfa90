import numpy as np
import pytest
import torch

from fkp.markup import IBUG68
from fkp.metrics import FaceErrors, interval, nme, summary

LABEL = np.random.default_rng(0).uniform(0, 200, (9, 68, 2))
PREDICTED = LABEL + np.random.default_rng(1).normal(0, 4, LABEL.shape)


def slow_nme(predicted: np.ndarray, label: np.ndarray) -> list[float]:
    """The formula, one point at a time."""
    faces = []
    for p, q in zip(predicted, label, strict=True):
        distances = [
            ((p[k] - q[k]) ** 2).sum() ** 0.5 for k in range(68) if not np.isnan(q[k]).any()
        ]
        faces.append(sum(distances) / len(distances) / (((q[36] - q[45]) ** 2).sum() ** 0.5))
    return faces


def test_nme_is_the_formula_in_numpy_and_in_torch() -> None:
    label = LABEL.copy()
    label[2, 5] = np.nan
    slow = slow_nme(PREDICTED, label)
    np.testing.assert_allclose(nme(PREDICTED, label, IBUG68), slow)
    np.testing.assert_allclose(nme(torch.tensor(PREDICTED), torch.tensor(label), IBUG68), slow)
    assert float(nme(PREDICTED[0], LABEL[0], IBUG68)) == pytest.approx(slow[0])


def test_nme_does_not_change_with_the_pixels() -> None:
    np.testing.assert_allclose(nme(PREDICTED * 3 + 7, LABEL * 3 + 7), nme(PREDICTED, LABEL))


def test_summary_against_a_counted_ced_curve() -> None:
    faces = np.random.default_rng(0).gamma(4, 0.02, 500)
    figures = summary(faces)
    steps = np.linspace(0, 0.1, 20001)
    ced = [(faces <= step).mean() for step in steps]
    assert figures["auc10"] == pytest.approx(100 * np.trapezoid(ced, steps) / 0.1, abs=0.02)
    assert figures["fr8"] == pytest.approx(100 * sum(f > 0.08 for f in faces) / 500)
    assert figures["nme"] == pytest.approx(100 * faces.mean())


def test_a_missed_face_is_a_failure_but_has_no_distance() -> None:
    figures = summary(np.array([0.05, np.inf]))
    assert (
        figures["nme"] == pytest.approx(5)
        and figures["fr10"] == 50
        and figures["auc10"] == pytest.approx(25)
    )


def test_epoch_figures_do_not_depend_on_batches() -> None:
    faces = torch.rand(100) / 5
    whole, parts = FaceErrors(), FaceErrors()
    whole.update(faces)
    for part in faces.split(7):
        parts.update(part)
    assert whole.compute() == pytest.approx(parts.compute())


def test_intervals_hold_the_true_mean_about_as_often_as_they_say() -> None:
    """Faces of one person err alike: an interval that drew faces instead of people would be far too narrow."""
    rng, hits, people = np.random.default_rng(3), 0, np.repeat(np.arange(40), 10)
    for seed in range(60):
        errors = 5 + rng.normal(0, 1, 40)[people] + rng.normal(0, 0.1, 400)
        low, high = interval(errors, people, draws=300, seed=seed)
        hits += low <= 5 <= high
    assert 0.8 < hits / 60 <= 1
    assert (
        interval(errors, np.arange(400), draws=300)[1]
        - interval(errors, np.arange(400), draws=300)[0]
        < high - low
    )


def test_missed_faces_have_no_part_in_an_interval() -> None:
    errors, people = np.array([1.0, 2, 3, np.inf]), np.array(["a", "b", "c", "d"])
    assert interval(errors, people) == interval(errors[:3], people[:3])
    assert np.isnan(interval(np.array([np.inf]), np.array(["a"]))).all()
