from pathlib import Path

import numpy as np
import pytest

from fkp import transforms as t
from fkp.canvases import decode
from fkp.dataset import FacialKeypointsDataset, ShuffledEpochs
from fkp.geometry import apply, face_box, invert
from fkp.markup import IBUG68
from fkp.sources import painter
from fkp.sources.youtube_faces import YoutubeFaces

GEOMETRIC = {
    "frame": t.FaceCrop(1.4, lower=0.1, shift=0.05, zoom=0.1, turn=15),
    "whole": t.FaceCrop(2.0, whole=True),
    "rescale": t.Rescale(250),
    "crop": t.RandomCrop(120),
}


def face(index: int = 0) -> t.Sample:
    image, points = painter.paint(1, index)
    return t.Sample(image[..., 0], np.eye(2, 3), (image.shape[1], image.shape[0]), face_box(points), points)


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_every_geometric_step_has_its_inverse(name: str, seed: int | None) -> None:
    rng = None if seed is None else np.random.default_rng(seed)
    sample = GEOMETRIC[name](face(), rng)
    assert sample.points is not None
    np.testing.assert_allclose(apply(invert(sample.to_crop), sample.crop_points()), sample.points, atol=1e-6)


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_pixels_go_where_points_go(seed: int | None) -> None:
    """A white dot painted at each label is found at that label's place in the crop."""
    rng = None if seed is None else np.random.default_rng(seed)
    sample = face()
    assert sample.points is not None
    sample.canvas = np.zeros((sample.extent[1], sample.extent[0]), np.uint8)
    where = np.round(sample.points[30]).astype(int)
    sample.points[30] = where
    sample.canvas[where[1], where[0]] = 255
    steps = [t.FaceCrop(1.4, shift=0.03, zoom=0.1, turn=10), t.Rescale(250), t.RandomCrop(224)]
    crop = t.run(steps, sample, rng).crop().astype(float)
    y, x = np.mgrid[:224, :224]
    centre = np.array([(x * crop).sum(), (y * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(centre, sample.crop_points()[30], atol=0.1)


def test_flip_twice_is_identity_and_pixels_go_with_points() -> None:
    """Two flips give the crop, the points and the affine back; one mirrors the pixels and swaps left and right."""

    class Always:
        def random(self) -> float:
            return 0.0

    steps = [t.FaceCrop(1.4), t.Rescale(125), t.RandomCrop(112)]
    flip, plain = t.RandomFlip(), t.run(steps, face())
    once = flip(t.run(steps, face()), Always())  # type: ignore[arg-type]
    np.testing.assert_allclose(once.crop(), plain.crop()[:, ::-1], atol=1)
    np.testing.assert_allclose(once.crop_points()[IBUG68.flip], plain.crop_points() * (-1, 1) + (111, 0), atol=1e-6)
    twice = flip(flip(t.run(steps, face()), Always()), Always())  # type: ignore[arg-type]
    np.testing.assert_allclose(twice.to_crop, plain.to_crop, atol=1e-9)
    np.testing.assert_array_equal(twice.points, plain.points)
    assert flip(t.run(steps, face()), None).points is not None


def test_light_changes_pixels_in_training_alone() -> None:
    steps = [t.FaceCrop(1.4), t.Rescale(125), t.RandomCrop(112), t.Normalize()]
    light, plain = t.RandomLight(0.2, 0.06, 0.02), t.run(steps, face()).crop()
    np.testing.assert_array_equal(light(t.run(steps, face())).crop(), plain)
    lit = light(t.run(steps, face()), np.random.default_rng(0)).crop()
    assert not np.allclose(lit, plain) and lit.min() >= 0 and lit.max() <= 1 and lit.dtype == np.float32


def test_without_a_draw_the_crop_is_the_middle() -> None:
    sample = t.run([t.FaceCrop(1.5), t.Rescale(250), t.RandomCrop(224)], face())
    centre = (sample.box[:2] + sample.box[2:]) / 2
    np.testing.assert_allclose(apply(sample.to_crop, centre), [111.5, 111.5], atol=1e-3)


def test_rescale_makes_the_shorter_side_and_keeps_the_ratio() -> None:
    sample = face()
    width, height = sample.extent
    moved = t.Rescale(250)(sample)
    assert min(moved.size) == pytest.approx(250)
    assert moved.size[0] / moved.size[1] == pytest.approx(width / height)


def test_whole_picture_frames_a_detected_face_as_large_as_in_training() -> None:
    detected = face()
    detected.points = None
    assert t.FaceCrop(2.0, whole=True)(detected).size[0] == pytest.approx(2 * (detected.box[2] - detected.box[0]))
    labelled = face()
    assert t.FaceCrop(2.0, whole=True)(labelled).size == labelled.extent


def test_geometry_after_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="before those that change pixels"):
        t.run([t.FaceCrop(1.5), t.Rescale(50), t.Normalize(), t.RandomCrop(40)], face())


STEPS = [
    t.FaceCrop(1.4, shift=0.05, zoom=0.1, turn=10), t.Rescale(125), t.RandomCrop(112), t.Normalize(), t.ToTensor()
]  # fmt: skip


@pytest.fixture()
def dataset(faces_folder: Path) -> FacialKeypointsDataset:
    table = YoutubeFaces(str(faces_folder)).read()
    return FacialKeypointsDataset(table, decode(table, IBUG68, True, 3.0), STEPS, IBUG68, seed=5)


def test_draws_are_a_function_of_seed_epoch_and_index(dataset: FacialKeypointsDataset) -> None:
    first = dataset[(1, 3)]
    dataset[(0, 0)], dataset[(7, 2)]
    again, other = dataset[(1, 3)], dataset[(2, 3)]
    np.testing.assert_array_equal(first["image"], again["image"])
    np.testing.assert_array_equal(first["to_crop"], again["to_crop"])
    assert not np.array_equal(first["to_crop"], other["to_crop"])
    assert first["image"].shape == (1, 112, 112) and first["image"].dtype == np.float32
    assert 0 <= first["image"].min() < first["image"].max() <= 1


def test_cached_pixels_are_those_of_the_file(dataset: FacialKeypointsDataset) -> None:
    """The canvas, its affine and a crop of it agree with the crop of the picture itself."""
    from fkp.pictures import read_picture

    for i in (0, 17, 39):
        cached = dataset[i]["image"]
        image = read_picture(dataset.table.paths[i], gray=True)
        sample = t.Sample(
            image, np.eye(2, 3), image.shape[::-1], dataset.boxes[i], dataset.table.points[i]  # type: ignore[arg-type]
        )  # fmt: skip
        np.testing.assert_allclose(cached, t.run(STEPS, sample).crop(), atol=2 / 255)


def test_a_changed_picture_is_decoded_again(faces_folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(faces_folder, tmp_path / "copy")
    table = YoutubeFaces(str(tmp_path / "copy")).read()
    before = decode(table, IBUG68, True, None)[0].copy()
    shutil.copy(table.paths[1], table.paths[0])
    after = decode(table, IBUG68, True, None)[0]
    assert before.shape != after.shape or not np.array_equal(before, after)


def test_unreadable_pictures_are_all_named_and_nothing_is_cached(faces_folder: Path, tmp_path: Path) -> None:
    import shutil

    from fkp.cache import cache_folder
    from fkp.errors import FkpError

    shutil.copytree(faces_folder, tmp_path / "copy")
    table = YoutubeFaces(str(tmp_path / "copy")).read()
    for i in (2, 4):
        table.paths[i].write_bytes(b"not a picture")
    before = set(cache_folder().iterdir())
    with pytest.raises(FkpError, match="2 bad rows") as error:
        decode(table, IBUG68, True, None)
    assert table.rows[2] in str(error.value) and table.rows[4] in str(error.value)
    assert set(cache_folder().iterdir()) == before


def test_every_face_once_an_epoch_in_another_order() -> None:
    sampler = ShuffledEpochs(50, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(index for _, index in first) == sorted(index for _, index in second) == list(range(50))
    assert [i for _, i in first] != [i for _, i in second] and second[0][0] == 1
    assert second == list(sampler)
