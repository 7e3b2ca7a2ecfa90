"""Test the data module: bad rows are refused in one error, and each split is served correctly."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, call

from fkp.augmentations import Colour, Light
from fkp.data import image_cache
from fkp.data.datamodule import FacesDataModule
from fkp.data.joined import Joined
from fkp.data.labelled_csv import LabelledCsv, write_csv
from fkp.data.pts_folders import write_pts
from fkp.data.sampling import WeightedEpochs
from fkp.data.table import OnBad
from fkp.data.youtube_faces import YoutubeFaces
from fkp.errors import FkpError
from fkp.files.images import read_image
from fkp.transforms import FaceCrop, RandomCrop, RandomFlip, Rescale, Transform


def crop() -> dict[str, Transform]:
    return {
        "frame": FaceCrop(1.4, shift=0.05),
        "rescale": Rescale(40),
        "crop": RandomCrop(36),
        "flip": RandomFlip(0.5),
    }


@pytest.fixture()
def module(faces_folder: Path) -> FacesDataModule:
    made = FacesDataModule(
        YoutubeFaces(str(faces_folder)), crop(), {"light": Light(0.1)}, batch_size=8, seed=3
    )
    made.setup()
    return made


@pytest.fixture()
def faces(faces_folder: Path, tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Return a folder with 32 faces as a CSV, and their points."""
    table = YoutubeFaces(str(faces_folder)).read().select(np.arange(32))
    shutil.copytree(faces_folder / "training", tmp_path / "own" / "images")
    write_csv(tmp_path / "own" / "keypoints.csv", [path.name for path in table.paths], table.points)
    return tmp_path / "own", table.points


@pytest.fixture()
def bad(faces: tuple[Path, np.ndarray]) -> Path:
    """Return the folder with five bad rows: two labels, and three images."""
    file = faces[0] / "keypoints.csv"
    lines = [line.split(",") for line in file.read_text().splitlines()]
    lines[3][5] = "12o"
    (faces[0] / "images" / lines[5][0]).unlink()
    (faces[0] / "images" / lines[8][0]).write_bytes(b"not an image")
    (faces[0] / "images" / lines[9][0]).write_bytes(b"")
    lines[12][2::2] = ["40"] * 68
    file.write_text("\n".join(",".join(line) for line in lines))
    return faces[0]


def own(root: Path, on_bad: OnBad = "stop") -> FacesDataModule:
    return FacesDataModule(LabelledCsv(str(root), on_bad=on_bad), crop(), batch_size=8)


def test_bad_rows_and_unreadable_images_are_refused_in_one_error(
    bad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise AssertionError("continued in spite of bad rows")

    monkeypatch.setattr("fkp.data.datamodule.check_flip", unreachable)
    monkeypatch.setattr("fkp.data.datamodule.FacialKeypointsDataset", unreachable)
    with pytest.raises(FkpError) as error:
        own(bad).setup()
    message = str(error.value)
    assert "5 bad rows, 27 good ones" in message and "data.on_bad=skip" in message
    for fault in (
        "keypoints.csv:4: '12o'",
        "keypoints.csv:6: no ",
        "keypoints.csv:9: Person_07_07.png: not a",
        "keypoints.csv:10: Person_08_08.png: not a",
        "keypoints.csv:13: all points lie on one line",
    ):
        assert fault in message


def test_skip_serves_exactly_the_good_rows(bad: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = own(bad, "skip")
    with caplog.at_level(logging.WARNING):
        module.setup()
    assert "5 bad rows left out, 27 faces kept" in caplog.text
    rows = [row for split in module.splits.values() for row in split.table.rows]
    wanted = {f"keypoints.csv:{line}" for line in range(2, 34)} - {
        f"keypoints.csv:{i}" for i in (4, 6, 9, 10, 13)
    }
    assert len(rows) == 27 and set(rows) == wanted
    for split in module.splits.values():  # images still belong to their labels
        for i, path in enumerate(split.table.paths):
            height, width = read_image(path, True).shape
            assert split.cache.extents[i].tolist() == [width, height]
    batch = module.on_after_batch_transfer(next(iter(module.train_dataloader())), 0)
    assert batch["image"].shape == (8, 1, 36, 36) and torch.isfinite(batch["image"]).all()


def test_bad_rows_alone_leave_no_face(faces: tuple[Path, np.ndarray]) -> None:
    for path in (faces[0] / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(FkpError, match="leaves no face for train and val and test: 0 faces"):
        own(faces[0], "skip").setup()


def test_flip_indices_that_do_not_fit_the_labels_are_refused(
    faces: tuple[Path, np.ndarray],
) -> None:
    root, points = faces
    names = [line.split(",")[0] for line in (root / "keypoints.csv").read_text().splitlines()[1:]]
    exchanged = points.copy()
    exchanged[:, [36, 48]] = points[:, [48, 36]]
    write_csv(root / "keypoints.csv", names, exchanged)
    with pytest.raises(
        FkpError, match="eye_right_outer is paired with eye_left_outer, but its mirror"
    ):
        own(root).setup()


def test_setup_reads_once(module: FacesDataModule, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = dict(module.splits)
    monkeypatch.setattr(module.source, "survey", lambda: pytest.fail("read again"))
    module.setup("test")
    assert all(module.splits[name] is split for name, split in splits.items())
    assert set(splits) == {
        "train",
        "val",
        "test",
    }


def test_every_split_has_its_own_faces(module: FacesDataModule, faces_folder: Path) -> None:
    tables = YoutubeFaces(str(faces_folder)).read().split("identity")
    for name, dataset in module.splits.items():
        assert dataset.table.paths.tolist() == tables[name].paths.tolist()
        np.testing.assert_array_equal(dataset.table.points, tables[name].points)
        np.testing.assert_array_equal(
            dataset[0]["points"].numpy().astype(np.float32),
            tables[name].points[0].astype(np.float32),
        )


def test_only_training_draws(module: FacesDataModule) -> None:
    loader = module.train_dataloader()
    assert isinstance(loader.sampler, WeightedEpochs)
    first, again = (torch.cat([batch["to_crop"] for batch in loader]) for _ in range(2))
    loader.sampler.set_epoch(1)
    other = torch.cat([batch["to_crop"] for batch in loader])
    assert (
        torch.equal(first, again)
        and not torch.equal(first, other)
        and len(first) == len(module.splits["train"])
    )
    for split, loader in (("val", module.val_dataloader()), ("test", module.test_dataloader())):
        batches = list(loader)
        assert all("draws" not in batch for batch in batches)
        points = torch.cat([batch["points"] for batch in batches]).numpy()
        np.testing.assert_allclose(points, module.splits[split].table.points, rtol=1e-6)
        image = module.on_after_batch_transfer(batches[0], 0)["image"]
        torch.testing.assert_close(image[0], module.splits[split][0]["image"], atol=1e-3, rtol=0)


def test_loading_leaves_random_numbers_of_torch_alone(module: FacesDataModule) -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    _ = [batch for batch in module.train_dataloader()]
    assert torch.equal(torch.rand(3), wanted)


def test_weights_say_how_often_training_shows_a_face(module: FacesDataModule) -> None:
    train = module.splits["train"]
    train.table.weights = np.where(np.arange(len(train)) % 2, 3.0, 1.0)
    assert (
        sum(len(batch["points"]) for batch in module.train_dataloader())
        == train.table.weights.sum()
    )
    module.splits["val"].table.weights = np.full(len(module.splits["val"]), 5.0)
    assert sum(len(batch["points"]) for batch in module.val_dataloader()) == len(
        module.splits["val"]
    )


@pytest.mark.parametrize("gain, gray, channels", [(0.0, True, 1), (0.2, True, 3), (0.0, False, 3)])
def test_colours_are_decoded_only_if_needed(
    gain: float, gray: bool, channels: int, faces_folder: Path
) -> None:
    source = YoutubeFaces(str(faces_folder))
    module = FacesDataModule(source, crop(), {"colour": Colour(gain)}, batch_size=4, gray=gray)
    module.setup()
    batch = next(iter(module.train_dataloader()))
    assert batch["cached"].shape[1] == channels
    assert module.on_after_batch_transfer(batch, 0)["image"].shape[1] == (1 if gray else 3)


def test_mean_points_are_those_of_crops_without_draws(module: FacesDataModule) -> None:
    train = module.splits["train"]
    train.table.points[0, 5] = np.nan
    crops = [
        item["points"].double() @ item["to_crop"][:, :2].double().T + item["to_crop"][:, 2]
        for item in train_items(train)
    ]
    np.testing.assert_allclose(
        module.mean_points(), np.nanmean(torch.stack(crops).numpy(), 0), atol=1e-3
    )


def train_items(dataset):  # type: ignore[no-untyped-def]
    return [dataset[i] for i in range(len(dataset))]


def test_margin_limits_the_cached_crops(faces_folder: Path) -> None:
    tight, whole = (
        FacesDataModule(YoutubeFaces(str(faces_folder)), crop(), margin=m) for m in (1.0, None)
    )
    tight.setup()
    whole.setup()
    sizes = [module.splits["train"].cache.shapes[:, :2] for module in (tight, whole)]
    assert (sizes[0] < sizes[1]).all()
    np.testing.assert_array_equal(sizes[1][:, ::-1], whole.splits["train"].cache.extents)


def test_images_are_decoded_once_for_all_splits(
    faces: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FKP_CACHE", str(faces[0] / "cache"))
    read: list[Path] = []

    def count(path: Path, gray: bool = False) -> np.ndarray:
        read.append(path)
        return read_image(path, gray)

    monkeypatch.setattr(image_cache, "read_image", count)
    for _ in range(2):
        own(faces[0]).setup()
    assert sorted(read) == sorted((faces[0] / "images").iterdir())


@pytest.mark.slow
def test_debug_augment_shows_augmented_faces_and_stops(faces_folder: Path, tmp_path: Path) -> None:
    arguments = (
        *TINY,
        f"data.root={faces_folder}",
        "debug=augment",
        "augment.colour.gain=0.2",
        "transforms.random_flip.p=0.5",
    )
    done = call("train.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (grid,) = tmp_path.glob("outputs/*/*/augment.png")
    assert "augment.png" in done.stdout and not list(tmp_path.glob("outputs/*/*/checkpoints"))
    image = read_image(grid)
    assert image.shape == (6 * 160, 8 * 160, 3)  # six faces: without a draw, and seven random draws
    tiles = image.reshape(6, 160, 8, 160, 3).swapaxes(1, 2).astype(int)
    for row in tiles:
        assert all(np.abs(row[0] - tile).mean() > 2 for tile in row[1:])
    refused = call("train.py", *TINY, f"data.root={faces_folder}", "debug=augmet", cwd=tmp_path)
    assert refused.returncode == 2 and "debug=augmet: there is augment" in refused.stderr


@pytest.mark.slow
def test_training_on_two_joined_sources(faces: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    root, points = faces
    table = LabelledCsv(str(root)).read()
    for folder in ("csv/images", "pts"):
        (tmp_path / "sets" / folder).mkdir(parents=True)
    for i, path in enumerate(table.paths[:16]):
        shutil.copy(path, tmp_path / "sets" / "pts")
        write_pts(tmp_path / "sets" / "pts" / f"{path.stem}.pts", points[i])
    for path in table.paths[16:]:
        shutil.copy(path, tmp_path / "sets" / "csv" / "images")
    write_csv(
        tmp_path / "sets/csv/keypoints.csv", [path.name for path in table.paths[16:]], points[16:]
    )
    (tmp_path / "sets/csv/images" / table.paths[20].name).write_bytes(b"not an image")
    arguments = (
        "data=joined",
        "data.sources=[csv,pts]",
        f"data.root={tmp_path / 'sets'}",
        "data.weights=[1,2]",
    )
    tiny = [argument for argument in TINY if "youtube" not in argument and "epochs" not in argument]
    refused = call("train.py", *arguments, *tiny, "trainer.max_epochs=1", cwd=tmp_path)
    assert refused.returncode == 2 and "1 bad rows, 31 good ones" in refused.stderr, refused.stderr
    assert f"csv/keypoints.csv:6: {table.paths[20].name}: not a" in refused.stderr
    done = call(
        "train.py", *arguments, *tiny, "trainer.max_epochs=1", "data.on_bad=skip", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (metrics,) = tmp_path.glob("outputs/*/*/metrics.json")
    assert "test/nme" in metrics.read_text()


def test_fewer_training_faces_are_a_part_of_more(faces_folder: Path) -> None:
    def rows(count: int | None, seed: int = 0) -> dict[str, set[str]]:
        source = YoutubeFaces(str(faces_folder))
        made = FacesDataModule(source, crop(), seed=seed, check_labels=False, train_faces=count)
        made.setup()
        return {name: set(split.table.rows) for name, split in made.splits.items()}

    everything, many, few, other = rows(None), rows(12), rows(6), rows(6, seed=1)
    assert few["train"] < many["train"] < everything["train"]
    assert len(few["train"]) == 6 and other["train"] != few["train"]
    assert few["test"] == everything["test"] and few["val"] == everything["val"]
    with pytest.raises(FkpError) as refused:
        rows(100)
    assert refused.value.key == "datamodule.train_faces"


def test_protocol_all_says_that_validation_faces_are_trained_on(
    faces_folder: Path, module: FacesDataModule, caplog: pytest.LogCaptureFixture
) -> None:
    source = Joined(
        ["a"], {"a": YoutubeFaces(str(faces_folder), protocol="strict")}, protocol="all"
    )
    everything = FacesDataModule(source, crop(), batch_size=8, check_labels=False)
    with caplog.at_level(logging.WARNING):
        everything.setup()
    assert module.held_out and not everything.held_out and "no measure" in caplog.text
    train, val, test = (everything.splits[name].table for name in ("train", "val", "test"))
    assert len(train) == 40 and not len(test)
    assert 0 < len(val) < 20 and set(val.paths) <= set(train.paths)
