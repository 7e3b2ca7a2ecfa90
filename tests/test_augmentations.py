"""Laws of pixel augmentation: the result for a face is a function of its draws, as documented."""

import ast
import inspect
import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fkp import augmentations as a
from fkp import painter

STEPS = {
    "colour": a.Colour(0.2),
    "light": a.Light(0.2, 0.1, 0.2, 0.1),
    "gain": a.Light(gain=0.2),
    "offset": a.Light(offset=0.2),
    "gamma": a.Light(gamma=0.3),
    "side": a.Light(side=0.2),
    "blur": a.Blur(0.5, 2.0),
    "occlusion": a.Occlusion(0.5, 0.6),
    "noise": a.Noise(0.1),
    "compression": a.Compression(0.5, (20, 80)),
}
OFF = [a.Colour(), a.Light(), a.Blur(), a.Occlusion(), a.Noise(), a.Compression()]
SHARED = ("blur", "occlusion", "compression")  # those for a share of the faces
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


@pytest.fixture(scope="module")
def images() -> Tensor:
    """(6, 3, 60, 52) of painted faces: sides that are no multiples of 8."""
    faces = [
        cv2.resize(painter.paint(2, i)[0], (52, 60), interpolation=cv2.INTER_AREA) for i in range(6)
    ]
    return torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).float() / 255


def drawn(count: int, faces: int = 6, seed: int = 0) -> Tensor:
    """Draws (faces, count, 2); the first uniform ones are evenly spread, half of them below 0.5."""
    rng = np.random.default_rng(seed)
    draws = np.stack([rng.random((faces, count)), rng.standard_normal((faces, count))], -1)
    draws[:, 0, 0] = (np.arange(faces) + 0.5) / faces
    return torch.from_numpy(draws).float()


def gray(images: Tensor) -> Tensor:
    return a.to_gray(images)


@pytest.mark.parametrize("step", OFF, ids=lambda step: type(step).__name__)
def test_without_strength_it_is_not_active(step: a.Augmentation) -> None:
    assert not step.active and not step.colour


@pytest.mark.parametrize(
    "name, channels", [(n, c) for n in STEPS for c in (1, 3) if c == 3 or n != "colour"]
)
def test_with_strength_it_changes_pixels_and_nothing_else(
    name: str, channels: int, images: Tensor
) -> None:
    step = STEPS[name]
    before = gray(images) if channels == 1 else images
    kept, after = before.clone(), step(before, drawn(step.draws))
    assert step.active and torch.equal(before, kept)  # what was given stays as it was
    assert (
        after.shape == before.shape and after.dtype == before.dtype and torch.isfinite(after).all()
    )
    changed = (after - before).abs().amax((1, 2, 3)) > 1e-5
    assert changed[:3].any() if name in SHARED else changed.all()


@pytest.mark.parametrize("name", STEPS)
def test_a_face_is_the_same_alone_and_in_a_batch(name: str, images: Tensor) -> None:
    step, draws = STEPS[name], drawn(STEPS[name].draws)
    together, backwards = step(images, draws), step(images.flip(0), draws.flip(0)).flip(0)
    for i in range(len(images)):
        torch.testing.assert_close(
            step(images[i : i + 1], draws[i : i + 1])[0], together[i], atol=1e-5, rtol=0
        )
    torch.testing.assert_close(backwards, together, atol=1e-5, rtol=0)
    assert not torch.allclose(
        step(images, draws.flip(0)), together
    )  # it is the draw that makes the difference


@pytest.mark.parametrize("name", SHARED)
def test_only_the_share_is_touched(name: str, images: Tensor) -> None:
    step, draws = STEPS[name], drawn(STEPS[name].draws)
    draws[:, 0, 0] = torch.tensor([0.0, 0.49, 0.5, 0.51, 0.9, 0.2])
    draws[:, 1, 0] = 0.9
    draws[:, 1:, 0] = draws[:, 1:, 0].clamp(0.4, 0.9)
    changed = (step(images, draws) - images).abs().amax((1, 2, 3)) > 0
    assert changed.tolist() == [True, True, False, False, False, True]
    draws[:, 0, 0] = 0.9
    assert torch.equal(step(images, draws), images)


def test_colour_scales_channels_and_nothing_else(images: Tensor) -> None:
    draws = drawn(3)
    after = a.Colour(0.3)(images, draws)
    seen = images > 0.05
    for i in range(6):
        for channel in range(3):
            ratio = (after[i, channel] / images[i, channel])[seen[i, channel]]
            np.testing.assert_allclose(ratio, math.exp(0.3 * draws[i, channel, 1]), rtol=1e-4)
    assert a.Colour(0.3).colour


def test_light_is_gain_offset_and_gamma(images: Tensor) -> None:
    draws = drawn(5)
    gain, offset, gamma = (draws[:, i, 1, None, None, None] for i in range(3))
    torch.testing.assert_close(a.Light(gain=0.3)(images, draws), images * torch.exp(0.3 * gain))
    torch.testing.assert_close(a.Light(offset=0.2)(images, draws), images + 0.2 * offset)
    torch.testing.assert_close(a.Light(gamma=0.4)(images, draws), images ** torch.exp(0.4 * gamma))
    ends = torch.tensor([0.0, 1.0]).repeat(6, 1, 4, 2)
    torch.testing.assert_close(a.Light(gamma=0.4)(ends, draws), ends)  # gamma keeps black and white


def test_side_light_is_a_slope_that_adds_nothing_on_the_whole(images: Tensor) -> None:
    """What one edge gains the other loses; along the light's direction it is a straight line."""
    draws = drawn(5)
    added = a.Light(side=0.2)(images, draws) - images
    np.testing.assert_allclose(added.mean((1, 2, 3)), 0, atol=1e-5)
    torch.testing.assert_close(added, -added.flip(2, 3), atol=1e-5, rtol=0)
    for axis in (2, 3):
        torch.testing.assert_close(
            added.diff(2, dim=axis), torch.zeros_like(added.diff(2, dim=axis)), atol=1e-5, rtol=0
        )
    slope = torch.hypot(
        added[:, 0, 0, -1] - added[:, 0, 0, 0], added[:, 0, -1, 0] - added[:, 0, 0, 0]
    )
    np.testing.assert_allclose(slope, 2 * 0.2 * draws[:, 3, 1].abs(), rtol=1e-3)


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 0.99), st.floats(0.1, 4))
def test_blur_keeps_a_constant_picture(level: float, draw: float, deviation: float) -> None:
    plain, draws = torch.full((1, 1, 9, 11), level), torch.zeros(1, 2, 2)
    draws[:, 1, 0] = draw
    torch.testing.assert_close(a.Blur(1.0, deviation)(plain, draws), plain, atol=1e-5, rtol=0)


def test_blur_is_a_gaussian_and_the_wider_the_flatter(images: Tensor) -> None:
    variances = [images.var((2, 3)).mean().item()]
    for share in (0.3, 0.6, 0.99):
        draws = torch.zeros(6, 2, 2)
        draws[:, 1, 0] = share
        blurred = a.Blur(1.0, 2.0)(images, draws)
        variances.append(blurred.var((2, 3)).mean().item())
        for i in range(6):
            picture = images[i].permute(1, 2, 0).numpy()
            wanted = cv2.GaussianBlur(
                picture, (11, 11), 2.0 * share, borderType=cv2.BORDER_REPLICATE
            )
            np.testing.assert_allclose(blurred[i].permute(1, 2, 0), wanted, atol=1e-3)
    assert sorted(variances, reverse=True) == variances and variances[-1] < 0.95 * variances[0]


@settings(deadline=None)
@given(st.integers(0, 999), st.floats(0.05, 1))
def test_occlusion_is_one_level_and_no_larger_than_promised(seed: int, side: float) -> None:
    draws = drawn(6, seed=seed)
    images = torch.full((6, 1, 60, 60), -1.0)
    after = a.Occlusion(1.0, side)(images, draws)
    for face, draw in zip(after, draws, strict=True):
        covered = face[face != -1]
        if not len(covered):
            continue
        assert covered.min() == covered.max() and 0 <= covered.min() <= 1
        y, x = np.nonzero(face[0].numpy() != -1)
        longest = side * draw[3, 0].item() * 59  # pixels between the middles of the outermost
        assert max(np.ptp(x), np.ptp(y)) <= math.hypot(longest, longest * draw[4, 0].item()) + 1e-3
        assert len(covered) <= (longest + 1) * (longest * draw[4, 0].item() + 1) + 2 * longest + 1


def test_occlusion_covers_the_rectangle_it_draws() -> None:
    draws = torch.zeros(1, 6, 2)
    draws[0, 1:5, 0] = torch.tensor(
        [0.5, 0.5, 0.8, 0.5]
    )  # middle, 0.8 * 0.5 of the side long, half as wide
    covered = (a.Occlusion(1.0, 0.5)(torch.full((1, 1, 101, 101), -1.0), draws) >= 0)[0, 0]
    assert covered.any(0).sum() == 39 and covered.any(1).sum() == 19
    draws[0, 5, 0] = 0.5  # upright
    covered = (a.Occlusion(1.0, 0.5)(torch.full((1, 1, 101, 101), -1.0), draws) >= 0)[0, 0]
    assert covered.any(1).sum() == 39 and covered.any(0).sum() == 19


def test_noise_has_the_stated_deviation_and_is_a_function_of_its_draw(images: Tensor) -> None:
    step, draws = a.Noise(0.1), drawn(2)
    draws[:, 1, 0] = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    grain = step(images, draws) - images
    np.testing.assert_allclose(grain.std((1, 2, 3)), 0.1 * draws[:, 1, 0], rtol=0.03)
    np.testing.assert_allclose(grain.mean((1, 2, 3)), 0, atol=0.004)
    unit = grain / draws[:, 1, 0, None, None, None]
    correlation = np.corrcoef(unit.flatten(1)) - np.eye(6)
    assert np.abs(correlation).max() < 0.05  # of different draws, different grain
    torch.testing.assert_close(a.Noise(0.1)(images, draws), step(images, draws))
    fresh, large = a.Noise(0.1), torch.zeros(1, 3, 90, 90)
    step(large, draws[:1])  # larger pictures between do not change what the small ones get
    torch.testing.assert_close(step(images, draws), fresh(images, draws))


def test_the_last_noise_there_is_can_be_drawn() -> None:
    draws = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])  # what float32 makes of 0.99999999
    assert torch.isfinite(a.Noise(0.1)(torch.zeros(1, 3, 16, 16), draws)).all()


def compressed(images: Tensor, quality: float) -> Tensor:
    return a.Compression(1.0, (quality, quality))(images, torch.zeros(len(images), 2, 2))


def test_the_best_compression_changes_next_to_nothing(images: Tensor) -> None:
    difference = (compressed(images, 100) - images).abs() * 255
    assert 0 < difference.mean() < 0.4 and difference.max() < 2


@pytest.mark.parametrize("quality, level", [(10, 0.6), (25, 0.6), (50, 0.6), (70, 1.0)])
def test_compression_is_what_opencvs_jpeg_does(quality: int, level: float) -> None:
    """Above 50 the files' tables are rounded to whole numbers, ours are not."""
    for index in range(3):
        picture = cv2.resize(
            cv2.cvtColor(painter.paint(3, index)[0], cv2.COLOR_RGB2GRAY), (96, 128)
        )
        done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert done
        wanted = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE).astype(float)
        ours = (
            compressed(torch.from_numpy(picture)[None, None].float() / 255, quality)[0, 0]
            .numpy()
            .clip(0, 1)
            * 255
        )
        assert np.abs(ours - wanted).mean() < level
        assert np.abs(picture - wanted).mean() > 2 * np.abs(ours - wanted).mean()


@settings(deadline=None)
@given(st.integers(1, 24), st.integers(1, 24))
def test_sides_need_not_be_multiples_of_8(height: int, width: int) -> None:
    """The padding repeats the edge, and what is inside is as in the padded picture."""
    image = torch.from_numpy(
        np.random.default_rng(height * 25 + width).random((1, 1, height, width))
    ).float()
    padded = F.pad(image, (0, -width % 8, 0, -height % 8), "replicate")
    torch.testing.assert_close(compressed(image, 60), compressed(padded, 60)[:, :, :height, :width])


def test_worse_quality_is_further_from_the_picture(images: Tensor) -> None:
    distances = [
        (compressed(images, quality) - images).abs().mean().item() for quality in (90, 60, 30, 10)
    ]
    assert sorted(distances) == distances


def test_gray_is_opencvs() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    ours = gray(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())[0, 0]
    np.testing.assert_allclose(ours, cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), atol=0.51)
    one = torch.rand(2, 1, 4, 4)
    assert torch.equal(gray(one), one)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", STEPS)
def test_it_works_on_the_device_of_its_input(name: str, device: str, images: Tensor) -> None:
    step, where = STEPS[name], torch.device(device)
    draws = drawn(step.draws)
    there = step(images.to(where), draws.to(where))
    assert there.device.type == where.type
    difference = (there.cpu() - step(images, draws)).abs()
    # The last bit of a coefficient may round the other way, or an edge pixel be inside: few do.
    assert difference.mean() < 1e-3 and (difference > 1e-4).float().mean() < 0.02


@pytest.mark.parametrize("device", DEVICES)
def test_resampling_works_on_the_device_of_its_input(device: str) -> None:
    where, pixels = (
        torch.device(device),
        torch.arange(2 * 3 * 20 * 30, dtype=torch.uint8).view(2, 3, 20, 30),
    )
    affines = torch.tensor([[[1.1, 0.1, 2.0], [-0.1, 1.1, 1.0]]]).repeat(2, 1, 1)
    there = a.resample(pixels.to(where), affines.to(where), (14, 12))
    assert there.device.type == where.type and there.shape == (2, 3, 12, 14)
    wanted = a.resample(pixels, affines, (14, 12)).float()
    torch.testing.assert_close(
        a._by_torch(pixels, affines, (14, 12)), wanted, atol=9, rtol=0
    )  # OpenCV's 1/32 pixels
    torch.testing.assert_close(there.cpu().float(), wanted, atol=9, rtol=0)


@pytest.mark.parametrize("way", [a.resample, a._by_torch])
def test_resampling_by_whole_pixels_copies_them(
    way: Callable[[Tensor, Tensor, tuple[int, int]], Tensor],
) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 1, 30, 41), np.uint8))
    affines = torch.tensor([[[1.0, 0, 5], [0, 1, 7]], [[1, 0, -3], [0, 1, 25]]])
    crops = way(pixels, affines, (10, 12)).float()
    torch.testing.assert_close(crops[0], pixels[0, :, 7:19, 5:15].float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        crops[1, :, :5, 3:], pixels[1, :, 25:30, :7].float(), atol=1e-3, rtol=0
    )
    assert crops[1, :, :, :3].max() < 1e-3 and crops[1, :, 5:].max() < 1e-3


def test_nothing_names_a_device() -> None:
    """No `.cuda()`, no `device="cuda"`: what works on the CPU works wherever the batch is."""
    tree = ast.parse(inspect.getsource(a))
    code = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert not {"cuda", "cpu"} & set(code)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        said = [word.value for word in call.keywords if word.arg == "device"]
        assert all(isinstance(value, ast.Attribute) and value.attr == "device" for value in said)
