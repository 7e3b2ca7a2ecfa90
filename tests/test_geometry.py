"""Laws of affines, boxes and resampling."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fkp import geometry as g

numbers = st.floats(-300, 300)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    about = g.rotation(draw(st.floats(-180, 180)), (draw(numbers), draw(numbers)))
    return g.compose(
        about, g.rescaling(draw(st.floats(0.1, 10))), g.translation(draw(numbers), draw(numbers))
    )


POINTS = np.random.default_rng(0).uniform(-50, 300, (68, 2))


@settings(deadline=None)
@given(affines())
def test_an_affine_and_its_inverse_are_the_identity(affine: np.ndarray) -> None:
    np.testing.assert_allclose(
        g.apply(g.invert(affine), g.apply(affine, POINTS)), POINTS, atol=1e-6
    )


@settings(deadline=None)
@given(affines(), affines())
def test_compose_applies_the_first_affine_first(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(
        g.apply(g.compose(a, b), POINTS), g.apply(b, g.apply(a, POINTS)), atol=1e-5
    )


@pytest.mark.parametrize("factor", [0.1, 0.25, 0.4, 0.7, 1.0, 1.6, 3.0])
def test_warp_moves_pixels_as_apply_moves_points(factor: float) -> None:
    """The centre of mass of a warped blob is the blob's centre, mapped through the affine."""
    y, x = np.mgrid[:400, :400]
    centre = np.array([201.3, 187.6])
    image = np.round(
        250 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 18**2))
    ).astype(np.uint8)
    affine = g.compose(g.rotation(20, centre), g.translation(-60, -40), g.rescaling(factor))
    size = (round(300 * factor), round(300 * factor))
    crop = g.warp(image, affine, size).astype(float)
    v, u = np.mgrid[: size[1], : size[0]]
    mass = np.array([(u * crop).sum(), (v * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(mass, g.apply(affine, centre), atol=0.06)


def test_rescaling_agrees_with_opencv() -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 80), np.uint8)
    own = g.warp(image, g.rescaling(2), (160, 120))
    np.testing.assert_allclose(
        own[2:-2, 2:-2], cv2.resize(image, (160, 120))[2:-2, 2:-2].astype(int), atol=2
    )


def test_face_box_is_a_square_that_moves_with_the_points() -> None:
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


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_batched_affines_equal_single_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers, centres, factors = (
        rng.uniform(-200, 200, (4, 5)),
        rng.uniform(0, 300, (5, 2)),
        rng.uniform(0.1, 9, 5),
    )
    batched = {
        "translation": g.translation(numbers[0], numbers[1]),
        "rescaling": g.rescaling(factors),
        "rotation": g.rotation(numbers[2], centres),
        "mirroring": g.mirroring(numbers[3]),
    }
    for i in range(5):
        np.testing.assert_array_equal(
            batched["translation"][i], g.translation(numbers[0, i], numbers[1, i])
        )
        np.testing.assert_array_equal(batched["rescaling"][i], g.rescaling(factors[i]))
        np.testing.assert_allclose(
            batched["rotation"][i], g.rotation(numbers[2, i], centres[i]), atol=1e-9
        )
        np.testing.assert_array_equal(batched["mirroring"][i], g.mirroring(numbers[3, i]))
    composed, points = g.compose(*batched.values()), rng.uniform(-50, 300, (5, 68, 2))
    moved, back = g.apply(composed, points), g.invert(composed)
    for i in range(5):
        single = g.compose(*(affines[i] for affines in batched.values()))
        np.testing.assert_allclose(composed[i], single, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(moved[i], g.apply(single, points[i]), rtol=1e-9, atol=1e-6)
        np.testing.assert_allclose(back[i], g.invert(single), rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(st.floats(1, 400))
def test_mirroring_swaps_the_edges_and_twice_is_the_identity(width: float) -> None:
    mirror = g.mirroring(width)
    np.testing.assert_allclose(
        g.apply(mirror, [[-0.5, 3], [width - 0.5, 7]]), [[width - 0.5, 3], [-0.5, 7]], atol=1e-9
    )
    np.testing.assert_allclose(g.compose(mirror, mirror), g.IDENTITY, atol=1e-9)


@settings(deadline=None)
@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_rescaling_twice_multiplies_the_factors(a: float, b: float) -> None:
    np.testing.assert_allclose(
        g.compose(g.rescaling(a), g.rescaling(b)), g.rescaling(a * b), rtol=1e-9, atol=1e-9
    )


@settings(deadline=None)
@given(st.floats(-180, 180), numbers, numbers)
def test_rotation_keeps_the_centre_and_is_clockwise(degrees: float, x: float, y: float) -> None:
    about, angle = g.rotation(degrees, (x, y)), np.deg2rad(degrees)
    np.testing.assert_allclose(g.apply(about, [x, y]), [x, y], atol=1e-9)
    np.testing.assert_allclose(
        g.apply(about, [x + 1, y]), [x + np.cos(angle), y + np.sin(angle)], atol=1e-9
    )


@settings(deadline=None)
@given(numbers, numbers, st.floats(0.1, 500), st.floats(0.1, 500))
def test_centre_and_side_inverts_square(x: float, y: float, side: float, other: float) -> None:
    np.testing.assert_allclose(g.centre_and_side(g.square(x, y, side)), (x, y, side), atol=1e-6)
    oblong = [x, y, x + side, y + other]
    np.testing.assert_allclose(
        g.centre_and_side(oblong),
        (x + side / 2, y + other / 2, np.sqrt(side * other)),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("factor", [0.1, 0.21, 0.26, 0.5, 0.51, 1.0, 3.0])
def test_shrunk_images_keep_places_and_need_no_further_averaging(factor: float) -> None:
    """The remaining affine shrinks by less than 2; a ramp of coordinates shows the same ones."""
    y, x = np.mgrid[:240, :240]
    ramp = np.stack([x, y], -1).astype(np.uint8)
    affine = g.compose(g.rotation(10, (120, 120)), g.rescaling(factor))
    size = (round(240 * factor), round(240 * factor))
    image, rest = g.shrunk(ramp, affine, size)
    assert np.sqrt(np.linalg.det(rest[:, :2])) > 0.5 + 1e-7
    places = np.stack(
        np.meshgrid(np.arange(image.shape[1]), np.arange(image.shape[0])), -1
    ).reshape(-1, 2)
    shown = image.reshape(-1, 2)
    np.testing.assert_allclose(
        g.apply(affine, shown), g.apply(rest, places), atol=0.51 * max(factor, 0.5) * 1.5
    )
    assert (image is ramp) == (factor > 0.5)


@given(st.floats(0.5, 2), st.floats(0, 180), st.floats(-50, 50), st.floats(-50, 50))
def test_stretching_scales_both_directions_and_keeps_areas(
    s: float, angle: float, x: float, y: float
) -> None:
    affine, centre = g.stretching(s, angle, (x, y)), np.array([x, y])
    along = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    across = along[::-1] * (-1, 1)
    moved = g.apply(affine, np.stack([centre, centre + along, centre + across]))
    np.testing.assert_allclose(moved, [centre, centre + s * along, centre + across / s], atol=1e-8)
    np.testing.assert_allclose(g.scale_of(affine), 1, atol=1e-9)
    np.testing.assert_allclose(
        g.compose(affine, g.stretching(1 / s, angle, centre)), g.IDENTITY, atol=1e-8
    )


def test_a_similarity_is_found_again_and_never_mirrors() -> None:
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(20, 2))
    turned = g.compose(
        g.rotation([-170, 3, 80], np.array([4.0, 5.0])),
        g.rescaling([0.1, 1.0, 30.0]),
        g.translation([1, -50, 9], [3, 0, 700]),
    )
    faces = g.apply(turned, np.tile(shape, (3, 1, 1)))
    found = g.similarity(faces, shape)
    np.testing.assert_allclose(found, g.invert(turned), atol=1e-9)

    # Least squares: no small change of the affine lies nearer.
    noisy = faces + rng.normal(0, 0.1, faces.shape)
    best = g.similarity(noisy, shape)
    mirrored = g.similarity(faces * (-1, 1), shape)
    assert (np.linalg.det(best[:, :, :2]) > 0).all()
    assert (np.linalg.det(mirrored[:, :, :2]) > 0).all()

    def distance(affine: np.ndarray) -> np.ndarray:
        return ((g.apply(affine, noisy) - shape) ** 2).sum((1, 2))

    for change in (g.rotation(0.1, np.zeros(2)), g.translation(0.001, 0)):
        changed = g.compose(best, np.broadcast_to(change, best.shape))
        assert (distance(best) < distance(changed)).all()


def test_overlaps_are_those_of_each_pair() -> None:
    random = np.random.default_rng(3)
    left_top = random.uniform(0, 50, (12, 2))
    boxes = np.concatenate([left_top, left_top + random.uniform(1, 40, (12, 2))], 1)
    shared, inside = g.overlaps(boxes)
    for i, a in enumerate(boxes):
        for j, b in enumerate(boxes):
            assert shared[i, j] == pytest.approx(g.overlap(a, b))
            assert inside[i, j] == pytest.approx(g.nesting(a, b))


def test_boxes_are_enlarged_as_images_are() -> None:
    box = np.array([3.0, 4.0, 10.0, 12.0])
    corners = g.apply(g.rescaling(2.5), box.reshape(2, 2))
    np.testing.assert_allclose(g.enlarged(box, 2.5)[0], corners.reshape(4))
