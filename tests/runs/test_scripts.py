"""Run `predict.py` and `evaluate.py` with a tiny trained model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import call

from fkp import painter
from fkp.files.images import read_image, write_image

Run = tuple[Path, str]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a synthetic face that the cascade finds; its name has a space and an umlaut."""
    from fkp.detectors import HaarCascade

    for index in range(50):
        image, _ = painter.paint(11, index)
        if len(HaarCascade()(image)[0]) == 1:
            return write_image(
                tmp_path_factory.mktemp("photos") / "mein schönes photo (1).png", image
            )
    raise AssertionError("the cascade finds none of 50 drawn faces")


def test_predict_writes_an_image_and_json(trained: Run, photo: Path, tmp_path: Path) -> None:
    done = call(
        "predict.py", f"image={photo}", f"ckpt={trained[0] / 'checkpoints/best.ckpt'}", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (record,) = tmp_path.glob("outputs/predictions/*/*.json")
    (face,) = json.loads(record.read_text())["faces"]
    assert (
        np.shape(face["points"]) == (68, 2)
        and len(face["confidence"]) == 68
        and len(face["box"]) == 4
    )
    drawn, image = read_image(record.with_suffix(".png")), read_image(photo)
    assert drawn.shape == image.shape and not np.array_equal(drawn, image)


def test_predict_loads_the_last_trained_model(trained: Run, photo: Path) -> None:
    cwd = trained[0].parents[2]
    done = call("predict.py", f"image={photo}", "ckpt=last", cwd=cwd)
    assert done.returncode == 0 and "checkpoints/best.ckpt" in done.stdout


def test_no_face_is_not_an_error(trained: Run, tmp_path: Path) -> None:
    photo = write_image(tmp_path / "wall.png", np.full((200, 300, 3), 90, np.uint8))
    done = call(
        "predict.py", f"image={photo}", f"ckpt={trained[0] / 'checkpoints/best.ckpt'}", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "no face found" in done.stdout


def test_a_mistake_exits_with_2_and_a_hint(trained: Run, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    ckpt = f"ckpt={trained[0] / 'checkpoints/best.ckpt'}"
    for arguments, message in [
        (["image=nowhere.jpg", ckpt], "nowhere.jpg: no such file"),
        (["image=text.jpg", ckpt], "text.jpg: not an image"),
        ([f"image={photo}", "ckpt=last"], "train one with `python train.py`"),
        ([f"image={photo}", "ckpt=gone.ckpt"], "gone.ckpt: no such checkpoint"),
        ([ckpt], "image"),
        (["text.jpg", ckpt], "did you mean image=text.jpg?"),
        ([f"image={photo}", ckpt, "detector=hair"], "haar"),
        ([f"image={photo}", ckpt, "drawn=gif"], "drawn=gif: "),
    ]:
        done = call("predict.py", *arguments, cwd=tmp_path)
        assert done.returncode == 2, arguments
        assert message in done.stderr and "Traceback" not in done.stderr
        assert not list(tmp_path.glob("outputs/*/*"))  # no folder is left


def test_evaluate_prints_and_saves_the_same_metrics(
    trained: Run, faces_folder: Path, tmp_path: Path
) -> None:
    arguments = [
        "data=youtube_faces",
        f"data.root={faces_folder}",
        f"ckpt={trained[0] / 'checkpoints/best.ckpt'}",
    ]
    done = call("evaluate.py", *arguments, "refine_steps=1", "run_dir=new/folder", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    saved = json.loads((tmp_path / "new/folder/metrics.json").read_text())
    assert printed.items() <= saved.items()
    for name in ("nme", "median", "fr8", "fr10", "auc10", "nme_eyes", "nme_jaw"):
        assert {
            f"{name}_{row}" for row in ("label_box", "detector", "as_trained", "mean_shape")
        } <= set(printed)
    # With one refinement step, the label's box gives the crops and the metrics of training.
    assert printed["nme_label_box"] == pytest.approx(printed["nme_as_trained"], abs=1e-3)
    own = json.loads((trained[0] / "metrics.json").read_text())
    assert printed["nme_label_box"] == pytest.approx(own["test/nme"], abs=0.02)
    assert printed["missed_detector"] >= 0
    assert saved["detector"]["name"] == "HaarCascade"  # the default, offline


def test_an_unwritable_output_is_reported_before_the_work(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments in (
        ["evaluate.py", "data.count=30", "run_dir=file"],
        ["export.py", "out=file/model.onnx"],
        ["export.py", "out=model.txt"],
        ["train.py", "data.count=30", "hydra.run.dir=file/x"],
    ):
        done = call(*arguments, cwd=tmp_path)
        assert done.returncode == 2 and "Traceback" not in done.stderr, arguments
        assert (
            arguments[-1].partition("=")[2].partition("/")[0] in done.stderr
            and "faces" not in done.stderr
        )


def test_an_unknown_split_is_reported(trained: Run, faces_folder: Path, tmp_path: Path) -> None:
    arguments = ["data=youtube_faces", f"data.root={faces_folder}", "split=tests"]
    done = call(
        "evaluate.py", *arguments, f"ckpt={trained[0] / 'checkpoints/best.ckpt'}", cwd=tmp_path
    )
    assert done.returncode == 2 and "train, val, test" in done.stderr


def test_evaluate_reads_a_users_csv(trained: Run, faces_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(faces_folder / "training", tmp_path / "images")
    shutil.copy(faces_folder / "training_frames_keypoints.csv", tmp_path / "mine.csv")
    ckpt = f"ckpt={trained[0] / 'checkpoints/best.ckpt'}"
    done = call(
        "evaluate.py", "data=csv", f"data.root={tmp_path}", "data.file=mine.csv", ckpt, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
