"""Jobs that share a folder leave what one job leaves, in any order, also after some were killed."""

import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from filelock import FileLock

from fkp import Predictor, painter
from fkp.errors import FkpError
from fkp.files.images import write_image
from fkp.inference.image_writer import ImageWriter
from fkp.inference.media import ImageCollection, find
from fkp.inference.shards import FOLDER, Shard
from fkp.inference.writers import PredictionWriter
from fkp.runs import predict

COUNT = 3


class Middle:
    """Detect one box in the middle of every image."""

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        box = np.array([[width / 4, height / 4, 3 * width / 4, 3 * height / 4]], np.float32)
        return box, np.ones(1, np.float32)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load(detector=Middle(), min_confidence=0, refine_steps=1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    image = painter.paint(5, 0)[0][::2, ::2]
    for i in range(9):
        write_image(root / ("a", "b")[i % 2] / f"{i}.png", np.roll(image, i, 1))
    (root / "text.png").write_text("not an image")
    return root


def collection(root: Path) -> ImageCollection:
    found = find(str(root))
    assert isinstance(found, ImageCollection)
    return found


@pytest.fixture
def job(predictor: Predictor, images: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that runs one shard, or all images for None."""

    def run(number: int | None, folder: str = "out", **request: Any) -> dict[str, Any]:
        out = PredictionWriter(predictor, tmp_path / folder, request, None, parquet=None)
        shard = None if number is None else Shard(number, COUNT)
        return out.write_collection(collection(images), shard=shard)

    return run


def table(folder: Path) -> dict[str, list[float]]:
    with (folder / "faces.csv").open() as file:
        _, *rows = csv.reader(file)
    return {row[0]: [float(cell) for cell in row[1:]] for row in rows}


def test_the_last_shard_writes_the_labels_of_all(
    predictor: Predictor, images: Path, tmp_path: Path
) -> None:
    def run(folder: str, shard: Shard | None) -> Path:
        out = PredictionWriter(predictor, tmp_path / folder, {}, None, labels="coco")
        summary = out.write_collection(collection(images), shard=shard)
        assert summary["detector"] == {"name": "Middle", "version": None}
        return tmp_path / folder / "labels/coco.json"

    first, second = (run("out", Shard(number, 2)).is_file() for number in range(2))
    assert not first and second
    assert run("out", Shard(0, 2)).read_bytes() == run("alone", None).read_bytes()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_each_path_belongs_to_one_shard_also_after_others_were_added(
    count: int, tmp_path: Path
) -> None:
    names = [f"{folder}/ü{i}.jpg" for folder in "xyz" for i in range(40)]
    all_paths = [tmp_path / name for name in names]
    few = ImageCollection(all_paths[::2], tmp_path)
    owners = {}
    for number in range(count):
        own = Shard(number, count).paths(ImageCollection(all_paths, tmp_path))
        assert Shard(number, count).paths(few) == own & set(few.paths)
        assert len(own) > len(names) / count / 3
        owners |= dict.fromkeys(own, number)
    assert sum(map(len, [owners])) == len(names)

    # Somewhere else, the same.
    moved = ImageCollection([tmp_path / "moved" / name for name in names], tmp_path / "moved")
    for number in range(count):
        theirs = {path.relative_to(moved.root) for path in Shard(number, count).paths(moved)}
        assert theirs == {
            path.relative_to(tmp_path) for path, one in owners.items() if one == number
        }


@pytest.mark.parametrize(
    ("number", "count", "key"),
    [(3, 3, "shard"), (-1, 3, "shard"), ("0..2", 3, "shard"), (0, 0, "shards"), (0, 2.5, "shards")],
)
def test_wrong_shards_are_refused(number: Any, count: Any, key: str) -> None:
    with pytest.raises(FkpError) as caught:
        Shard(number, count)
    assert caught.value.key == key


def test_shards_in_any_order_leave_what_one_job_leaves(
    job: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    alone = job(None, "alone")
    order = random.Random(1).sample(range(COUNT), COUNT)
    *first, last = [job(number) for number in order]
    assert [one["shards_missing"] for one in first] == [2, 1]
    assert not {"faces"} & set(first[0]) and last["shards"] == COUNT
    for name in ("images", "faces", "without_face", "videos", "failed", "notes"):
        assert last[name] == alone[name], name
    assert len(last["failed"]) == 1

    one, many = table(tmp_path / "alone"), table(tmp_path / "out")
    assert list(one) == list(many) and len(one) == 9
    np.testing.assert_allclose(list(one.values()), list(many.values()), atol=0.05)

    # Again: nothing is written.
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    again = [job(number) for number in range(COUNT)]
    assert {path: path.stat().st_mtime_ns for path in times if path.suffix != ".lock"} == {
        path: time for path, time in times.items() if path.suffix != ".lock"
    }
    assert all(summary["faces"] == alone["faces"] for summary in again)


def test_a_killed_shard_loses_nothing(
    job: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = ImageWriter.write, 0

    def stop(self: ImageWriter, *arguments: Any) -> None:
        nonlocal written
        written += 1
        if written > 1:
            raise KeyboardInterrupt
        write(self, *arguments)

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(ImageWriter, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            job(1)
    kept = {
        path: path.stat().st_mtime_ns for path in out.rglob("*.json") if FOLDER not in str(path)
    }
    assert kept
    assert job(0)["shards_missing"] == 2 and job(2)["shards_missing"] == 1
    assert not (out / "faces.csv").exists()

    assert job(1)["faces"] == 9
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())

    # Killed while it merged; and results that were lost.
    (out / "summary.json").unlink()
    (out / "faces.csv").unlink()
    assert job(0)["faces"] == 9 and len(table(out)) == 9
    (out / "a/0.json").unlink()
    assert {number: job(number)["faces"] for number in range(COUNT)}[COUNT - 1] == 9
    assert (out / "a/0.json").exists()


def test_another_request_or_process_is_refused(
    job: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    job(0, ckpt="a")
    with pytest.raises(FkpError) as caught:
        job(1, ckpt="b")
    assert caught.value.key == "ckpt"
    with FileLock(tmp_path / "out" / FOLDER / ".1.json.lock"), pytest.raises(FkpError) as caught:
        job(1, ckpt="a")
    assert caught.value.key == "shard"


def test_parquet_holds_the_table(job: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    job(None)
    read = parquet.read_table(tmp_path / "out/faces.parquet").to_pylist()
    rows = table(tmp_path / "out")
    assert [row.pop("image") for row in read] == list(rows)
    np.testing.assert_allclose([list(row.values()) for row in read], list(rows.values()), atol=1e-3)


def test_jobs_of_one_prediction_share_a_folder() -> None:
    def folder(arguments: list[str]) -> str:
        (found,) = [one for one in predict.arguments(arguments) if one.startswith("run_dir=")]
        return found

    given = ["image=x", "shards=16"]
    assert folder([*given, "shard=3"]) == folder(["shard=4", *given, "threads=1"])
    assert folder(["-m", *given, "shard=range(0,16)", "hydra/launcher=joblib"]) == folder(given)
    assert folder(given) != folder(["image=x", "shards=8"])
    assert folder([*given, "run_dir=mine"]) == "run_dir=mine"
    assert predict.arguments(["image=x", "pts=true"]) == ["image=x", "pts=true"]


@pytest.mark.slow
def test_joblib_runs_the_shards_and_the_same_command_completes_them(
    images: Path, tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    script = [sys.executable, str(ROOT / "predict.py"), "-m", "hydra/launcher=joblib"]
    options = ("shard=0..2", "shards=3", "drawn=null", "hydra.launcher.n_jobs=2")
    for _ in range(2):
        done = subprocess.run(
            [*script, f"image={images}", *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        (out,) = (tmp_path / "outputs/predictions").iterdir()
        summary = json.loads((out / "summary.json").read_text())
        assert summary["images"] == 10 and len(summary["failed"]) == 1
        # Lost with a shard that was killed.
        os.unlink(out / "a/0.json")
        os.unlink(out / FOLDER / "1.json")
    assert summary["done_before"] >= 1
