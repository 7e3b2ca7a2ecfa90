"""Tracking numbers the faces of a video and smooths their points."""

import numpy as np
import pytest

from fkp import Face, painter
from fkp.errors import FkpError
from fkp.inference.tracking import OneEuro, Tracker

RATE = 25.0


def face(points: np.ndarray) -> Face:
    return Face(points.astype(np.float32), np.ones(68, np.float32), np.zeros(4, np.float32), 1.0)


@pytest.fixture(scope="module")
def label() -> np.ndarray:
    return painter.paint(3, 0)[1]


def test_constant_values_and_the_first_value_are_unchanged() -> None:
    smooth = OneEuro(1.0, 0.0, 1.0)
    for i in range(5):
        np.testing.assert_array_equal(smooth(np.array([[3.0, 4.0]]), i / RATE), [[3.0, 4.0]])


def test_filter_without_beta_is_a_low_pass_filter() -> None:
    """After a step the remaining distance falls as exp(-2 pi f t), at a high sample rate."""
    smooth, rate, cutoff = OneEuro(2.0, 0.0, 1.0), 5000.0, 2.0
    smooth(np.zeros((1, 2)), 0.0)
    for i in range(1, 501):
        value = smooth(np.ones((1, 2)), i / rate)
    assert 1 - value[0, 0] == pytest.approx(np.exp(-2 * np.pi * cutoff * 500 / rate), rel=0.01)


def test_smoothing_does_not_depend_on_the_scale() -> None:
    steps = np.random.default_rng(0).normal(size=(30, 4, 2)).cumsum(0)
    small, large = OneEuro(1.0, 2.0, 1.0), OneEuro(1.0, 2.0, 1.0)
    for i, values in enumerate(steps):
        a, b = small(values, i / RATE, 1.0), large(8 * values, i / RATE, 8.0)
        np.testing.assert_allclose(8 * a, b)


def test_still_face_jitters_less_and_moving_face_does_not_lag(
    label: np.ndarray,
) -> None:
    rng = np.random.default_rng(1)
    size = float(np.sqrt(np.ptp(label, axis=0).prod()))
    noisy = [label + rng.normal(0, 0.01 * size, label.shape) for _ in range(60)]
    still = Tracker()
    raw = np.stack(noisy)
    smooth = np.stack([still([face(p)], i / RATE)[0].points for i, p in enumerate(noisy)])
    jitter = [
        np.linalg.norm(np.diff(points[20:], axis=0), axis=2).mean() for points in (raw, smooth)
    ]
    assert jitter[1] < 0.5 * jitter[0]

    # A speed of one face size a second.
    tracker, speed = Tracker(), size
    for i in range(60):
        place = label + (i / RATE * speed, 0)
        (last,) = tracker([face(place)], i / RATE)
    assert np.abs(last.points - place).max() < 0.03 * size


def test_track_numbers_follow_faces_in_any_order_and_after_a_gap(label: np.ndarray) -> None:
    tracker, side = Tracker(smooth=False), float(np.ptp(label[:, 0]))
    other = label + (2 * side, 0)
    first = tracker([face(label), face(other)], 0.0)
    assert [found.track for found in first] == [1, 2]
    reordered = tracker([face(other + 1), face(label + 1)], 0.04)
    assert [found.track for found in reordered] == [2, 1]
    np.testing.assert_array_equal(reordered[0].points, (other + 1).astype(np.float32))
    assert tracker([], 0.08) == []

    # Lost for less than the patience, and for longer.
    assert [found.track for found in tracker([face(label)], 0.3)] == [1]
    assert [found.track for found in tracker([face(label)], 2.0)] == [3]

    assert "Face 3(" in repr(tracker([face(label)], 2.1)[0])
    assert tracker([face(label)], 2.2)[0].as_dict()["track"] == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cutoff", 0),
        ("cutoff", -1),
        ("cutoff", np.nan),
        ("beta", -1),
        ("speed_cutoff", 0),
        ("overlapping", 2),
    ]
    + [("overlapping", -0.1), ("patience", -1), ("patience", np.nan)],
)
def test_values_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(FkpError, match=f"{name}="):
        Tracker(**{name: value})


def test_json_of_a_face_is_rounded_with_none_for_non_finite_numbers(label: np.ndarray) -> None:
    points = label.astype(np.float32)
    points[0] = np.nan, np.inf
    found = Face(
        points,
        np.full(68, 0.123456, np.float32),
        np.array([381.09, 1, 2, 3], np.float32),
        float("nan"),
    )
    plain = found.as_dict()
    assert plain["box"] == [381.09, 1.0, 2.0, 3.0] and plain["confidence"][0] == 0.1235
    assert plain["points"][0] == [None, None] and plain["score"] is None
    assert plain["points"][1] == [round(float(value), 3) for value in points[1]]
