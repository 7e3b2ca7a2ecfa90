import numpy as np
import pytest
import torch

from fkp.markup import IBUG68
from fkp.metrics import FaceErrors, interval, nme, summary

LABEL = np.random.default_rng(0).uniform(0, 200, (9, 68, 2))
PREDICTED = LABEL + np.random.default_rng(1).normal(0, 4, LABEL.shape)


def slow_nme(predicted: np.ndarray, label: np.ndarray) -> list[float]:
    """Compute the formula, one point at a time."""
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


def test_nme_is_invariant_to_scale_and_translation() -> None:
    np.testing.assert_allclose(nme(PREDICTED * 3 + 7, LABEL * 3 + 7), nme(PREDICTED, LABEL))


def test_summary_equals_a_counted_ced_curve() -> None:
    faces = np.random.default_rng(0).gamma(4, 0.02, 500)
    metrics = summary(faces)
    steps = np.linspace(0, 0.1, 20001)
    ced = [(faces <= step).mean() for step in steps]
    assert metrics["auc10"] == pytest.approx(100 * np.trapezoid(ced, steps) / 0.1, abs=0.02)
    assert metrics["fr8"] == pytest.approx(100 * sum(f > 0.08 for f in faces) / 500)
    assert metrics["nme"] == pytest.approx(100 * faces.mean())


def test_a_missed_face_counts_as_failure_but_not_in_the_mean() -> None:
    metrics = summary(np.array([0.05, np.inf]))
    assert (
        metrics["nme"] == pytest.approx(5)
        and metrics["fr10"] == 50
        and metrics["auc10"] == pytest.approx(25)
    )


def test_metrics_of_an_epoch_do_not_depend_on_batches() -> None:
    faces = torch.rand(100) / 5
    at_once, batched = FaceErrors(), FaceErrors()
    at_once.update(faces)
    for batch in faces.split(7):
        batched.update(batch)
    assert at_once.compute() == pytest.approx(batched.compute())


def test_intervals_cover_the_true_mean_as_often_as_their_level() -> None:
    """Errors of one person's faces are correlated: drawing single faces is too optimistic."""
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


def test_intervals_leave_missed_faces_out() -> None:
    errors, people = np.array([1.0, 2, 3, np.inf]), np.array(["a", "b", "c", "d"])
    assert interval(errors, people) == interval(errors[:3], people[:3])
    assert np.isnan(interval(np.array([np.inf]), np.array(["a"]))).all()
