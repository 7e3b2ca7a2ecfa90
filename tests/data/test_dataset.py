"""Test the dataset: draws are a function of (seed, epoch, draw), and pixels are the file's."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fkp import augmentations as a
from fkp.data.dataset import FacialKeypointsDataset
from fkp.data.image_cache import ImageCache, decode
from fkp.data.sampling import Key, WeightedEpochs
from fkp.data.table import FaceTable
from fkp.data.youtube_faces import YoutubeFaces
from fkp.files.images import read_image
from fkp.geometry import face_box, warp
from fkp.markup import IBUG68
from fkp.transforms import FaceCrop, RandomCrop, RandomFlip, Rescale, Transform, run

STEPS: list[Transform] = [
    FaceCrop(1.4, 0.1, 0.05, 0.2, 10),
    Rescale(70),
    RandomCrop(64),
    RandomFlip(0.5),
]
PIXELS = [
    a.Light(0.2, 0.05, 0.1, 0.05),
    a.Blur(0.5),
    a.Occlusion(0.3),
    a.Noise(0.03),
    a.Compression(0.5),
]
Everything = tuple[FaceTable, ImageCache, ImageCache]


@pytest.fixture(scope="module")
def everything(faces_folder: Path) -> Everything:
    """Return the table, the gray cache and the colour cache of 12 faces."""
    table = YoutubeFaces(str(faces_folder)).read().select(np.arange(12))
    return table, decode(table, IBUG68, True, 3.0)[0], decode(table, IBUG68, False, 3.0)[0]


@pytest.fixture(scope="module")
def dataset(everything: Everything) -> FacialKeypointsDataset:
    return FacialKeypointsDataset(everything[0], everything[1], STEPS, IBUG68, PIXELS, seed=5)


KEYS: list[Key] = [(1, 3), (0, 0), (7, 2), (1, 15), (2, 3), (1, 11), (0, 7)]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two items are the same draw: labels and affine exactly, pixels nearly."""
    exact = all(torch.equal(one[name], other[name]) for name in ("points", "to_crop"))
    difference = (one["image"] - other["image"]).abs()
    # Compression quantises, so a last bit may become a step of its table, in very few places.
    return exact and difference.mean() < 2e-4 and (difference > 1e-3).float().mean() < 0.02


def test_item_does_not_depend_on_its_batch(
    dataset: FacialKeypointsDataset,
) -> None:
    alone = [dataset[key] for key in KEYS]
    for keys in (KEYS, KEYS[::-1], KEYS[2:5]):
        batch = dataset.finish(dataset.__getitems__(keys))
        assert batch["image"].shape == (len(keys), 1, 64, 64)
        for place, key in enumerate(keys):
            assert same(
                {name: value[place] for name, value in batch.items()}, alone[KEYS.index(key)]
            )


def test_item_without_compression_differs_by_a_fraction_of_a_gray_level(
    everything: Everything,
) -> None:
    dataset = FacialKeypointsDataset(*everything[:2], STEPS, IBUG68, PIXELS[:4], seed=5)
    batch = dataset.finish(dataset.__getitems__(KEYS))
    for place, key in enumerate(KEYS):
        torch.testing.assert_close(
            batch["image"][place], dataset[key]["image"], atol=0.3 / 255, rtol=0
        )


def test_item_does_not_depend_on_earlier_draws(dataset: FacialKeypointsDataset) -> None:
    first = dataset[(1, 3)]
    for key in KEYS:
        _ = dataset[key], dataset[key[1]]
    torch.manual_seed(9)
    np.random.seed(9)
    again = dataset[(1, 3)]
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_seed_epoch_and_visit_change_the_draw(
    everything: Everything, dataset: FacialKeypointsDataset
) -> None:
    first, elsewhere = (
        dataset[(1, 3)],
        FacialKeypointsDataset(*everything[:2], STEPS, IBUG68, PIXELS, seed=6),
    )
    for other in (dataset[(2, 3)], dataset[(1, 15)], elsewhere[(1, 3)]):
        assert not torch.equal(first["to_crop"], other["to_crop"])
        assert not torch.equal(first["image"], other["image"])
        labels = (
            other["points"]
            if torch.equal(first["points"], other["points"])
            else other["points"][IBUG68.flip_indices]
        )
        assert torch.equal(labels, first["points"])  # of the same face


def test_int_keys_are_not_augmented(
    everything: Everything, dataset: FacialKeypointsDataset
) -> None:
    plain = FacialKeypointsDataset(*everything[:2], STEPS, IBUG68, seed=99)
    for face in range(len(dataset)):
        one, other = dataset[face], plain[face]
        assert all(torch.equal(one[name], other[name]) for name in one)
        np.testing.assert_allclose(one["points"], dataset.table.points[face], rtol=1e-6)
    assert "draws" not in dataset.__getitems__([1, 2]) and "draws" in dataset.__getitems__([(0, 1)])


def test_augmentations_change_pixels_and_not_geometry(
    everything: Everything,
) -> None:
    whole = FacialKeypointsDataset(*everything[:2], STEPS, IBUG68, PIXELS, seed=5)
    off = FacialKeypointsDataset(
        *everything[:2], STEPS, IBUG68, [a.Light(), a.Blur(), a.Noise(), a.Colour()], seed=5
    )
    bare = FacialKeypointsDataset(*everything[:2], STEPS, IBUG68, seed=5)
    assert all(
        torch.equal(off[(0, 1)][name], bare[(0, 1)][name])
        for name in ("image", "points", "to_crop")
    )
    batch = whole.__getitems__(KEYS)
    images = whole.finish(dict(batch))["image"]
    without = whole.finish({name: value for name, value in batch.items() if name != "draws"})[
        "image"
    ]
    assert ((images - without).abs().amax((1, 2, 3)) > 0.01).all()
    assert images.min() >= 0 and images.max() <= 1 and images.dtype == torch.float32


@pytest.mark.parametrize("gray", [True, False])
def test_each_augmentation_gets_its_own_draws_and_colour_comes_first(
    everything: Everything, gray: bool
) -> None:
    steps = [a.Colour(0.3), a.Light(0.2, 0.05), a.Noise(0.03), a.Occlusion(0.5)]
    dataset = FacialKeypointsDataset(
        everything[0], everything[2], STEPS, IBUG68, steps, gray=gray, seed=5
    )
    batch = dataset.__getitems__(KEYS)
    plain = FacialKeypointsDataset(everything[0], everything[2], STEPS, IBUG68, gray=False)
    images, draws = plain.finish({**batch})["image"], batch["draws"]
    images = steps[0](images, draws[:, :3])
    images = a.to_gray(images) if gray else images
    images = steps[3](steps[2](steps[1](images, draws[:, 3:8]), draws[:, 8:10]), draws[:, 10:16])
    torch.testing.assert_close(
        dataset.finish(batch)["image"], images.clamp(0, 1), atol=1e-6, rtol=0
    )


def test_items_and_steps_share_no_random_numbers(dataset: FacialKeypointsDataset) -> None:
    """All random numbers of a batch differ."""
    batch = dataset.__getitems__(KEYS)
    assert batch["draws"].shape == (7, sum(step.draws for step in PIXELS), 2)
    assert len(torch.unique(batch["draws"])) == batch["draws"].numel()
    uniform, normal = batch["draws"][..., 0], batch["draws"][..., 1]
    assert uniform.min() >= 0 and uniform.max() <= 1 and normal.min() < -1 and normal.max() > 1


def test_gray_network_gets_one_channel_from_colour_cache(everything: Everything) -> None:
    table, gray, colour = everything
    light = [a.Light(0.2, 0.05)]
    ours = FacialKeypointsDataset(table, colour, STEPS, IBUG68, light, gray=True, seed=1)
    wanted = FacialKeypointsDataset(table, gray, STEPS, IBUG68, light, gray=True, seed=1)
    for key in (4, (3, 4), (0, 9)):
        assert ours[key]["image"].shape == (1, 64, 64)
        torch.testing.assert_close(ours[key]["image"], wanted[key]["image"], atol=3 / 255, rtol=0)
    rgb = FacialKeypointsDataset(table, colour, STEPS, IBUG68, gray=False)[4]["image"]
    assert rgb.shape == (3, 64, 64) and not torch.equal(rgb[0], rgb[2])
    torch.testing.assert_close(a.to_gray(rgb[None])[0], ours[4]["image"])


def test_colour_augmentation_changes_gray_images(everything: Everything) -> None:
    table, _, colour = everything
    dataset = FacialKeypointsDataset(
        table, colour, STEPS, IBUG68, [a.Colour(0.3), a.Light(0.01)], gray=True
    )
    batch = dataset.__getitems__([(0, 0), (1, 0), (2, 0)])
    assert batch["cached"].shape[1] == 3 and dataset.finish(batch)["image"].shape[1] == 1
    plain = FacialKeypointsDataset(table, colour, STEPS, IBUG68, [a.Light(0.01)], gray=True)
    plain_images = plain.finish({**batch, "draws": batch["draws"][:, 3:]})["image"]
    assert ((dataset.finish(batch)["image"] - plain_images).abs().amax((1, 2, 3)) > 0.02).all()


@pytest.mark.parametrize("size", [20, 64, 200])
def test_crop_from_cache_equals_crop_from_file(everything: Everything, size: int) -> None:
    """The crop from the cached crop equals the crop of the image itself, at every scale."""
    table, gray, _ = everything
    steps = [STEPS[0], Rescale(size), RandomCrop(size)]
    dataset = FacialKeypointsDataset(table, gray, steps, IBUG68, seed=2)
    for key in (0, 7, (1, 5)):
        item, face = dataset[key], key if isinstance(key, int) else key[1]
        image = read_image(table.paths[face], gray=True)
        wanted = warp(image, item["to_crop"].double().numpy(), (size, size)) / 255
        difference = np.abs(item["image"][0].numpy() - wanted) * 255
        assert difference.mean() < 0.6 and np.quantile(difference, 0.97) < 3


def test_shrunk_crops_have_no_dark_edges(everything: Everything) -> None:
    table, gray, _ = everything
    white = ImageCache(np.full(len(gray.pixels), 255, np.uint8), *list(vars(gray).values())[1:])
    for size in (9, 16, 37):
        dataset = FacialKeypointsDataset(
            table, white, [FaceCrop(0.6, rotation=10), Rescale(size), RandomCrop(size)], IBUG68
        )
        batch = dataset.finish(dataset.__getitems__(list(range(12))))
        turned = dataset.finish(dataset.__getitems__([(0, i) for i in range(12)]))
        assert min(batch["image"].min(), turned["image"].min()) > 0.99


@pytest.mark.parametrize("size", [16, 40])
def test_flipped_crops_are_as_smooth_as_others(everything: Everything, size: int) -> None:
    """A flipped crop is the mirror image of the crop, also where the image is shrunk first."""
    steps = [FaceCrop(1.4), Rescale(size), RandomCrop(size)]
    plain, mirrored = (
        FacialKeypointsDataset(*everything[:2], s, IBUG68)
        for s in (steps, [*steps, RandomFlip(1.0)])
    )
    pairs = [(mirrored[(0, face)]["image"].flip(2), plain[(0, face)]["image"]) for face in range(6)]
    # Averaged blocks may begin elsewhere; crops that skip pixels differ by at least 4 levels.
    assert np.mean([(one - other).abs().mean() * 255 for one, other in pairs]) < 2


def test_small_cached_crop_gives_the_same_crop(everything: Everything) -> None:
    table, gray, _ = everything
    tight = decode(table, IBUG68, True, 1.8)[0]
    assert (tight.affines[:, :, 2] < -5).any()
    ours, wanted = (
        FacialKeypointsDataset(table, pixels, STEPS[:3], IBUG68) for pixels in (tight, gray)
    )
    for face in range(len(table)):
        difference = (ours[face]["image"] - wanted[face]["image"]).abs() * 255
        assert difference.mean() < 1  # averaged blocks may begin elsewhere


def test_crops_agree_with_items(
    dataset: FacialKeypointsDataset,
) -> None:
    crops = dataset.crops([3, 5])
    for place, face in enumerate((3, 5)):
        item = dataset[face]
        np.testing.assert_allclose(item["to_crop"], crops.to_crop[place], rtol=1e-6)
        np.testing.assert_allclose(
            crops.boxes[place], face_box(dataset.table.points[face]), rtol=1e-6
        )
    assert (crops.crop_points() > -20).all() and (crops.crop_points() < 84).all()


def test_transforms_resample_once(everything: Everything) -> None:
    """A detour through a tiny size loses nothing, because pixels are resampled only at the end."""
    direct, detour = (
        FacialKeypointsDataset(*everything[:2], [FaceCrop(1.4), *steps, RandomCrop(64)], IBUG68)
        for steps in ([Rescale(70)], [Rescale(3), Rescale(70)])
    )
    for face in range(3):
        torch.testing.assert_close(direct[face]["image"], detour[face]["image"], atol=1e-3, rtol=0)


def test_shrinking_a_face_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    """Two cached pixels per crop pixel, to the last bit of a rotation."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, 400 * 400 + 1600 * 1600, np.uint8)
    starts, shapes = np.array([0, 400 * 400]), np.array([[400, 400, 1], [1600, 1600, 1]])
    boxes = np.array([[72, 72, 328, 328], [288, 288, 1312, 1312]], np.float32)
    cache = ImageCache(
        pixels, starts, shapes, np.repeat(np.eye(2, 3)[None], 2, 0), shapes[:, :2], boxes
    )
    table = FaceTable([tmp_path] * 2, rng.uniform(80, 320, (2, 68, 2)), ["a", "b"], ["1", "2"])
    dataset = FacialKeypointsDataset(
        table, cache, [FaceCrop(1.0, rotation=40), Rescale(128), RandomCrop(128)], IBUG68
    )
    for epoch in range(10, 22):
        batch = dataset.finish(dataset.__getitems__([(epoch, 0), (epoch, 1)]))
        torch.testing.assert_close(
            batch["image"][0], dataset[(epoch, 0)]["image"], atol=0.01, rtol=0
        )


def test_geometry_uses_the_first_draws(dataset: FacialKeypointsDataset) -> None:
    """The geometry uses the first numbers of `default_rng([seed, epoch, draw])`."""
    rng = np.random.default_rng([5, 1, 3])
    draws = np.stack([rng.random(dataset.draws[0]), rng.standard_normal(dataset.draws[0])], -1)[
        None
    ]
    crops = dataset.crops([3])
    boxes, extents, points = crops.boxes, crops.extents, dataset.table.points[[3]]
    wanted = run(STEPS, type(crops)(boxes, extents, points, IBUG68.flip_indices), draws)
    np.testing.assert_allclose(dataset[(1, 3)]["to_crop"], wanted.to_crop[0], rtol=1e-6)


def epochs(weights: np.ndarray, count: int, seed: int = 0) -> list[list[Key]]:
    sampler, taken = WeightedEpochs(weights, seed), []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        taken.append(list(sampler))
        assert len(sampler) == len(taken[-1]) and {said for said, _ in taken[-1]} <= {epoch}
    return taken


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 9))
def test_weight_1_shows_every_face_once(count: int, seed: int) -> None:
    for epoch in epochs(np.ones(count), 3, seed):
        assert sorted(draw for _, draw in epoch) == list(range(count))


def test_weight_2_shows_every_face_twice_with_different_draws(
    dataset: FacialKeypointsDataset,
) -> None:
    (epoch,) = epochs(np.full(12, 2.0), 1)
    assert sorted(draw for _, draw in epoch) == list(range(24))
    assert not torch.equal(dataset[(0, 3)]["to_crop"], dataset[(0, 15)]["to_crop"])


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0, 1.25, 2.0, 3.7]), min_size=1, max_size=60),
    st.integers(0, 9),
)
def test_weights_are_counts_per_epoch_and_over_many_epochs(weights: list[float], seed: int) -> None:
    array, taken = np.array(weights), epochs(np.array(weights), 40, seed)
    assert len({len(epoch) for epoch in taken}) == 1
    for epoch in taken:
        assert len(set(epoch)) == len(epoch)  # no draw comes twice
        seen = Counter(draw % len(weights) for _, draw in epoch)
        for weight in set(weights):
            faces = np.flatnonzero(array == weight)
            often = [seen[int(face)] for face in faces]
            assert min(often) >= np.floor(weight) and max(often) <= np.ceil(weight)
            fraction = weight - np.floor(weight)
            more = (
                max(1, round(fraction * len(faces))) if fraction else 0
            )  # none is left out for ever
            assert sum(often) == np.floor(weight) * len(faces) + more
    total = Counter(draw % len(weights) for epoch in taken for _, draw in epoch)
    for weight in set(weights):
        often = [total[int(face)] for face in np.flatnonzero(array == weight)]
        assert max(often) - min(often) <= 1


def test_order_is_a_function_of_seed_and_epoch() -> None:
    weights = np.array([1.0, 0.5, 2.0, 1.5] * 10)
    first, again, other = epochs(weights, 3), epochs(weights, 3), epochs(weights, 3, seed=1)
    assert first == again and len(first[0]) == 50
    orders = [[draw for _, draw in epoch] for epoch in (*first, *other)]
    assert len({tuple(order) for order in orders}) == 6
    sampler = WeightedEpochs(weights)
    sampler.set_epoch(2)
    assert list(sampler) == list(sampler) == first[2]  # whatever epochs came before
