"""Laws of the geometric steps: one affine a face, and pixels go where points go."""

from functools import lru_cache

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fkp import painter
from fkp import transforms as t
from fkp.augmentations import _by_torch, resample
from fkp.geometry import (
    apply,
    compose,
    face_box,
    invert,
    mirroring,
    rotation,
    scale_of,
    shrunk,
    translation,
    warp,
)
from fkp.markup import IBUG68

CHAIN = [
    t.FaceCrop(1.4, 0.1, shift=0.05, zoom=0.1, rotation=15),
    t.Rescale(250),
    t.RandomCrop(224),
    t.RandomFlip(0.5),
]
STEPS = {
    "face crop": CHAIN[:1],
    "whole": [t.FaceCrop(2.0, full_image=True)],
    "rescale": [t.Rescale(77)],
    "crop": [t.RandomCrop(120)],
    "flip": [t.RandomFlip(0.5)],
    "all": CHAIN,
}
FACES = 4


@lru_cache
def painted(index: int) -> tuple[np.ndarray, np.ndarray]:
    image, points = painter.paint(1, index)
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), points


def faces(*indices: int, labelled: bool = True) -> t.Crops:
    pairs = [painted(i) for i in indices or range(FACES)]
    points = np.stack([points for _, points in pairs])
    boxes, extents = (
        np.stack([face_box(p) for p in points]),
        np.array([image.shape[::-1] for image, _ in pairs]),
    )
    return t.Crops(boxes.astype(float), extents, points if labelled else None, IBUG68.flip_indices)


def draws(seed: int, steps: list[t.Transform] = CHAIN, count: int = FACES) -> np.ndarray:
    rng, each = np.random.default_rng(seed), sum(step.draws for step in steps)
    return np.stack([rng.random((count, each)), rng.standard_normal((count, each))], -1)


def through(way, image: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:  # type: ignore[no-untyped-def]
    """What the dataset and its `finish` do to one gray canvas."""
    image, affine = shrunk(image, affine, size)
    to_canvas = torch.from_numpy(invert(affine)[None]).float()
    return way(torch.from_numpy(np.ascontiguousarray(image))[None, None], to_canvas, size)[
        0, 0
    ].numpy()


def on_cpu(image: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return through(resample, image, affine, size)


def on_gpu(image: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The way of every other device, which works on a CPU too."""
    return through(_by_torch, image, affine, size)


WAYS = {"warp": warp, "resample": on_cpu, "resample on a GPU": on_gpu}


@pytest.mark.parametrize("name", STEPS)
@settings(deadline=None)
@given(seed=st.one_of(st.none(), st.integers(0, 99)))
def test_every_geometric_step_is_undone_by_its_inverse(name: str, seed: int | None) -> None:
    before = faces()
    crops = t.run(STEPS[name], faces(), None if seed is None else draws(seed, STEPS[name]))
    back = apply(invert(crops.to_crop), crops.crop_points())
    mirrored = np.linalg.det(crops.to_crop[:, :, :2]) < 0
    wanted = [
        p[IBUG68.flip_indices] if swap else p
        for p, swap in zip(before.points, mirrored, strict=True)
    ]
    np.testing.assert_allclose(back, wanted, atol=1e-6)
    linear = crops.to_crop[:, :, :2]
    scale = np.abs(np.linalg.det(linear))[
        :, None, None
    ]  # turned, mirrored and scaled: never sheared or squeezed
    np.testing.assert_allclose(
        linear @ linear.swapaxes(1, 2), scale * np.eye(2), rtol=1e-9, atol=1e-9
    )


@settings(deadline=None)
@given(st.integers(0, 99))
def test_a_face_is_cropped_alike_alone_and_in_a_batch(seed: int) -> None:
    drawn = draws(seed)
    together = t.run(CHAIN, faces(), drawn)
    for i in range(FACES):
        alone = t.run(CHAIN, faces(i), drawn[i : i + 1])
        np.testing.assert_allclose(alone.to_crop[0], together.to_crop[i], rtol=1e-12, atol=1e-9)
        np.testing.assert_array_equal(alone.points[0], together.points[i])


@settings(deadline=None)
@given(st.integers(0, 99))
def test_a_chain_of_steps_is_one_affine(seed: int) -> None:
    """Compare with the same crop computed another way: rotate, scale, shift, mirror."""
    drawn = draws(seed)
    crops, start = t.run(CHAIN, faces(), drawn), faces()
    for i in range(FACES):
        left, top, right, bottom = start.boxes[i]
        side = right - left
        (dx, dy, zoom, turn), (across, down), (flip,) = (
            drawn[i, :4, 1],
            drawn[i, 5:7, 0],
            drawn[i, 7:, 0],
        )
        x, y = (left + right) / 2 + 0.05 * side * dx, (top + bottom) / 2 + (0.1 + 0.05 * dy) * side
        factor = 250 / (1.4 * side * np.exp(0.1 * zoom))
        about = compose(rotation(15 * turn, (x, y)), translation(-x, -y))
        linear = np.array([[factor, 0, 0], [0, factor, 0]])  # about the centre: no half pixels
        corner = translation(124.5 - round(26 * across), 124.5 - round(26 * down))
        wanted = compose(about, linear, corner, *([mirroring(224)] if flip < 0.5 else []))
        np.testing.assert_allclose(crops.to_crop[i], wanted, atol=1e-4)


def test_the_edges_of_the_square_become_the_edges_of_the_crop() -> None:
    crops = t.run([t.FaceCrop(1.5), t.Rescale(64)], faces())
    for i, (left, top, right, bottom) in enumerate(faces().boxes):
        middle, half = np.array([left + right, top + bottom]) / 2, 0.75 * (right - left)
        np.testing.assert_allclose(
            apply(crops.to_crop[i], [middle - half, middle + half]),
            [[-0.5] * 2, [63.5] * 2],
            atol=1e-5,
        )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [44, 100, 320])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_pixels_go_where_points_go(way: str, size: int, seed: int | None) -> None:
    """A white blob painted at a label is found at that label's place in the crop."""
    steps = [CHAIN[0], t.Rescale(size), t.RandomCrop(round(size * 0.9)), t.RandomFlip(0.5)]
    crops = t.run(steps, faces(), None if seed is None else draws(seed))
    for i in range(FACES):
        x, y = crops.points[i, 30]
        width, height = faces().extents[i]
        v, u = np.mgrid[:height, :width]
        spread = (crops.boxes[i, 2] - crops.boxes[i, 0]) / 25
        blob = np.round(255 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * spread**2))).astype(
            np.uint8
        )
        crop = WAYS[way](blob, crops.to_crop[i], crops.size).astype(float)
        v, u = np.mgrid[: crop.shape[0], : crop.shape[1]]
        mass = np.array([(u * crop).sum(), (v * crop).sum()]) / crop.sum()
        np.testing.assert_allclose(mass, crops.crop_points()[i, 30], atol=0.1)


@pytest.mark.parametrize("size", [40, 90, 224])
@pytest.mark.parametrize("seed", [None, 0])
def test_all_ways_of_resampling_agree(size: int, seed: int | None) -> None:
    crops = t.run(
        [CHAIN[0], t.Rescale(size), t.RandomCrop(size)],
        faces(),
        None if seed is None else draws(seed),
    )
    for i in range(FACES):
        image = painted(i)[0]
        exact, *others = (
            way(image, crops.to_crop[i], crops.size) for way in (on_gpu, on_cpu, warp)
        )
        for other in others:
            difference = np.abs(exact - other.astype(float))
            # OpenCV rounds its result, and coordinates to 1/32 of a pixel: a few levels at most.
            assert (
                difference.mean() < 0.45
                and np.quantile(difference, 0.97) <= 2
                and difference.max() <= 5
            )


def test_all_ways_of_resampling_are_black_outside() -> None:
    white, affine = np.full((50, 60), 255, np.uint8), translation(20, 10)
    for way in WAYS.values():
        crop = way(white, affine, (100, 90))
        np.testing.assert_allclose(crop[10:60, 20:80], 255, atol=0.01)
        assert crop.sum() == pytest.approx(255 * 50 * 60, rel=1e-4)


def test_flip_twice_is_identity_and_once_swaps_partners() -> None:
    always, flip, plain = np.zeros((FACES, 1, 2)), t.RandomFlip(), t.run(CHAIN[:3], faces())
    once = flip(t.run(CHAIN[:3], faces()), always)
    np.testing.assert_allclose(
        once.crop_points()[:, IBUG68.flip_indices],
        plain.crop_points() * (-1, 1) + (223, 0),
        atol=1e-9,
    )
    for i in range(FACES):
        crop, mirrored = (warp(painted(i)[0], c.to_crop[i], c.size) for c in (plain, once))
        np.testing.assert_allclose(mirrored[:, ::-1].astype(float), crop, atol=5)
    twice = flip(flip(t.run(CHAIN[:3], faces()), always), always)
    np.testing.assert_allclose(twice.to_crop, plain.to_crop, atol=1e-9)
    np.testing.assert_array_equal(twice.points, plain.points)


def test_share_says_which_faces_are_mirrored() -> None:
    drawn = np.zeros((FACES, 1, 2))
    drawn[:, 0, 0] = [0.1, 0.29, 0.31, 0.99]
    mirrored = t.RandomFlip(0.3)(faces(), drawn)
    assert (np.linalg.det(mirrored.to_crop[:, :, :2]) < 0).tolist() == [True, True, False, False]
    np.testing.assert_array_equal(mirrored.points[2:], faces().points[2:])
    np.testing.assert_array_equal(t.RandomFlip(0.0)(faces(), drawn * 0).to_crop, faces().to_crop)
    unlabelled = t.RandomFlip(1.0)(faces(labelled=False), drawn)
    np.testing.assert_array_equal(unlabelled.to_crop, faces().to_crop)


def test_without_a_draw_everything_takes_the_middle() -> None:
    """Without draws, transforms take the middle of what they could draw."""
    steps = [
        t.FaceCrop(1.5, shift=0.1, zoom=0.2, rotation=20),
        t.Rescale(250),
        t.RandomCrop(224),
        t.RandomFlip(0.4),
    ]
    middle = draws(0, steps) * 0 + (0.5, 0.0)
    crops = t.run(steps, faces())
    np.testing.assert_allclose(t.run(steps, faces(), middle).to_crop, crops.to_crop, atol=1e-9)
    centres = (crops.boxes[:, None, :2] + crops.boxes[:, None, 2:]) / 2
    np.testing.assert_allclose(
        apply(crops.to_crop, centres), np.full((FACES, 1, 2), 111.5), atol=1e-3
    )
    np.testing.assert_array_equal(t.run(steps, faces(labelled=False)).to_crop, crops.to_crop)


def test_lower_moves_the_crop_down() -> None:
    high, low = (
        t.run([t.FaceCrop(1.5, lower), t.Rescale(150)], faces()).crop_points()
        for lower in (0.0, 0.2)
    )
    np.testing.assert_allclose(high - low, np.broadcast_to((0, 20), high.shape), atol=1e-3)


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(1, 500))
def test_random_crops_are_whole_pixels_inside_the_picture(seed: int, size: int) -> None:
    crops = t.run([t.RandomCrop(size)], faces(), draws(seed, [t.RandomCrop(size)]))
    corner = -crops.to_crop[:, :, 2]
    np.testing.assert_array_equal(corner, np.round(corner))
    assert crops.size == (size, size) and (corner >= 0).all()
    assert (corner <= np.maximum(crops.extents - size, 0)).all()
    if (crops.extents - size > 100).all():
        assert len(np.unique(corner)) > 4  # and not always the same ones


def test_draws_reach_the_step_they_are_for() -> None:
    """Another number for one step changes that step alone."""
    drawn = draws(3)
    other = drawn.copy()
    other[:, 5:7, 0] = 1 - other[:, 5:7, 0]  # RandomCrop's
    first, second = (t.run(CHAIN[:3], faces(), d) for d in (drawn, other))
    np.testing.assert_allclose(first.to_crop[:, :, :2], second.to_crop[:, :, :2], atol=1e-12)
    moved = second.to_crop[:, :, 2] - first.to_crop[:, :, 2]
    np.testing.assert_allclose(
        moved, np.round(26 * drawn[:, 5:7, 0]) - np.round(26 * other[:, 5:7, 0]), atol=1e-9
    )


@settings(deadline=None)
@given(st.integers(1, 600))
def test_rescale_makes_the_shorter_side_and_keeps_the_ratio(size: int) -> None:
    crops = t.Rescale(size)(faces())
    np.testing.assert_allclose(crops.sizes.min(1), size)
    np.testing.assert_allclose(
        crops.sizes[:, 0] / crops.sizes[:, 1], crops.extents[:, 0] / crops.extents[:, 1]
    )
    corners = np.stack([np.full((FACES, 2), -0.5), crops.extents - 0.5], 1)
    np.testing.assert_allclose(
        apply(crops.to_crop, corners),
        np.stack([np.full((FACES, 2), -0.5), crops.sizes - 0.5], 1),
        atol=1e-9,
    )


def test_whole_pictures_in_training_and_a_square_in_prediction() -> None:
    step = t.FaceCrop(2.0, shift=0.1, zoom=0.2, rotation=9, full_image=True)
    for drawn in (None, draws(0, [step])):
        labelled = step(faces(), drawn)
        np.testing.assert_array_equal(labelled.to_crop, faces().to_crop)
        np.testing.assert_array_equal(labelled.sizes, labelled.extents)
    detected = step(faces(labelled=False))
    sides = detected.boxes[:, 2] - detected.boxes[:, 0]
    np.testing.assert_allclose(detected.sizes, np.stack([2 * sides, 2 * sides], -1), rtol=1e-5)
    centres = (detected.boxes[:, None, :2] + detected.boxes[:, None, 2:]) / 2
    np.testing.assert_allclose(
        apply(detected.to_crop, centres)[:, 0], detected.sizes / 2 - 0.5, atol=1e-4
    )


def test_crops_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="crops of different sizes; end with a RandomCrop"):
        _ = t.Rescale(250)(faces()).size
    assert t.run([t.Rescale(250), t.RandomCrop(200)], faces()).size == (200, 200)


def test_tensors_hold_the_pixels_channel_first_in_zero_to_one() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    for pixels in (colour, colour[..., 0]):
        tensor = t.Normalize()(t.ToTensor()(pixels))
        assert (
            tensor.shape == (2, 3 if pixels.ndim == 4 else 1, 5, 7)
            and tensor.dtype == torch.float32
        )
        np.testing.assert_allclose(tensor[1, 0].numpy() * 255, colour[1, ..., 0], rtol=1e-6)


def test_normalising_leaves_its_input_as_it_is() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    for values in (pixels, pixels.float()):
        assert torch.equal(t.Normalize()(values), values * (1 / 255))
        assert torch.equal(values, pixels.to(values.dtype))


def test_a_tilt_that_is_known_is_taken_out() -> None:
    """A rolled face, cropped with its roll, lies in the crop as the upright face does."""
    steps, upright = [t.FaceCrop(1.3, 0.1), t.Rescale(64)], faces()
    wanted = apply(t.run(steps, upright).to_crop, upright.points)
    for tilt in (-170.0, -30.0, 45.0):
        start = faces()
        centres = (start.boxes[:, :2] + start.boxes[:, 2:]) / 2
        turned = apply(rotation(tilt, centres), start.points)
        crops = t.run(
            steps,
            t.Crops(start.boxes, start.extents, turned, IBUG68.flip_indices, np.full(FACES, tilt)),
        )
        np.testing.assert_allclose(crops.crop_points(), wanted, atol=1e-6)


def test_a_share_of_faces_is_in_the_tail() -> None:
    drawn = np.stack([np.random.default_rng(0).random((FACES, 4)), np.ones((FACES, 4))], -1)
    thin, wide = (
        t.run([t.FaceCrop(1.0, shift=0.1, tail_p=tail)], faces(), drawn).to_crop
        for tail in (0.0, 0.5)
    )
    middle = t.run([t.FaceCrop(1.0)], faces()).to_crop
    ratio = (wide - middle)[:, 0, 2] / (thin - middle)[:, 0, 2]
    np.testing.assert_allclose(ratio, np.where(drawn[:, 0, 0] < 0.5, 3.0, 1.0), atol=1e-6)


def test_stretched_faces_keep_their_area_and_vary_in_shape() -> None:
    plain, stretched = (
        t.run([t.FaceCrop(1.4, zoom=0.1, rotation=10, stretch=amount)], faces(), draws(5)).to_crop
        for amount in (0.0, 0.2)
    )
    np.testing.assert_allclose(scale_of(plain), scale_of(stretched))
    assert (np.abs(plain[:, :, :2] - stretched[:, :, :2]).max((1, 2)) > 1e-3).all()
    still = t.run([t.FaceCrop(1.4, stretch=0.2)], faces()).to_crop
    np.testing.assert_array_equal(still, t.run([t.FaceCrop(1.4)], faces()).to_crop)
