import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fkp import geometry as g

numbers = st.floats(-300, 300)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    turn = g.rotation(draw(st.floats(-180, 180)), (draw(numbers), draw(numbers)))
    return g.compose(turn, g.rescaling(draw(st.floats(0.1, 10))), g.translation(draw(numbers), draw(numbers)))


POINTS = np.random.default_rng(0).uniform(-50, 300, (68, 2))


@given(affines())
def test_there_and_back_is_identity(affine: np.ndarray) -> None:
    np.testing.assert_allclose(g.apply(g.invert(affine), g.apply(affine, POINTS)), POINTS, atol=1e-6)


@given(affines(), affines())
def test_compose_applies_the_first_first(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(g.apply(g.compose(a, b), POINTS), g.apply(b, g.apply(a, POINTS)), atol=1e-5)


@pytest.mark.parametrize("factor", [0.1, 0.25, 0.4, 0.7, 1.0, 1.6, 3.0])
def test_warp_moves_pixels_as_points(factor: float) -> None:
    """A blob's centre of mass in the warped picture is its centre, moved through the affine."""
    y, x = np.mgrid[:400, :400]
    centre = np.array([201.3, 187.6])
    image = np.round(250 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 18**2))).astype(np.uint8)
    affine = g.compose(g.rotation(20, centre), g.translation(-60, -40), g.rescaling(factor))
    size = (round(300 * factor), round(300 * factor))
    crop = g.warp(image, affine, size).astype(float)
    v, u = np.mgrid[: size[1], : size[0]]
    mass = np.array([(u * crop).sum(), (v * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(mass, g.apply(affine, centre), atol=0.06)


def test_rescaling_is_what_opencv_does() -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 80), np.uint8)
    own = g.warp(image, g.rescaling(2), (160, 120))
    np.testing.assert_allclose(own[2:-2, 2:-2], cv2.resize(image, (160, 120))[2:-2, 2:-2].astype(int), atol=2)


def test_face_box_follows_the_points() -> None:
    box = g.face_box(POINTS)
    left, top, right, bottom = box
    assert right - left == pytest.approx(bottom - top, rel=1e-5)
    np.testing.assert_allclose(g.face_box(POINTS * 2 + 30), box * 2 + 30, rtol=1e-5)
    unlabelled = POINTS.copy()
    unlabelled[30] = np.nan
    assert np.isfinite(g.face_box(unlabelled)).all()


def test_overlap() -> None:
    assert g.overlap([0, 0, 2, 2], [0, 0, 2, 2]) == pytest.approx(1)
    assert g.overlap([0, 0, 2, 2], [1, 0, 3, 2]) == pytest.approx(1 / 3)
    assert g.overlap([0, 0, 1, 1], [2, 2, 3, 3]) == 0
