"""Run `train.py` on tiny data: its files, bit-identical repetition, and resuming."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from conftest import TINY, call, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fkp import painter
from fkp.geometry import face_box
from fkp.inference.predictor import Predictor

Run = tuple[Path, str]
pytestmark = pytest.mark.slow


def test_a_run_prints_the_next_commands(trained: Run) -> None:
    run, printed = trained
    near = run.relative_to(run.parents[2])
    (command,) = [
        line.split("go on with")[1] for line in printed.splitlines() if "go on with" in line
    ]
    assert (
        command.endswith(f"ckpt={near}/checkpoints/best.ckpt")
        and f"tensorboard --logdir {near}" in printed
    )
    done = call(*shlex.split(command)[1:], cwd=run.parents[2])  # the command as printed works
    assert done.returncode == 0, done.stderr
    assert "this network" in printed and "mean shape" in printed
    for name in (
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "test_faces.png",
        "metrics.json",
    ):
        assert (run / name).stat().st_size > 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 < metrics["test/nme"] < 100 and 0 < metrics["test/nme_mean_shape"] < 100


def test_tensorboard_has_the_curves_of_the_readme(trained: Run) -> None:
    events = EventAccumulator(
        str(next((trained[0] / "tensorboard").iterdir())), {"images": 0, "scalars": 0, "tensors": 0}
    )
    events.Reload()
    tags = events.Tags()
    wanted = {
        f"{split}/{name}"
        for split in ("train", "val")
        for name in ("loss", "nme", "fr8", "fr10", "auc10")
    }
    assert wanted | {"lr-SGD", "test/nme"} <= set(tags["scalars"])
    steps = [event.step for event in events.Scalars("val/nme")]
    assert [event.step for event in events.Images("val/faces")] == steps and len(steps) == 2
    assert "model:" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    plugin = {
        tag
        for tag in tags["tensors"] + list(events.summary_metadata)
        if tag.startswith("_hparams_")
    }
    assert plugin


@pytest.fixture(scope="module")
def again(trained: Run, faces_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train by the same command, but with a loader process."""
    cwd = tmp_path_factory.mktemp("again")
    done = call("train.py", *TINY, f"data.root={faces_folder}", "datamodule.num_workers=1", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return next(cwd.glob("outputs/*/*/metrics.json")).parent


def test_the_same_seed_gives_the_same_weights_bit_for_bit(trained: Run, again: Path) -> None:
    first, second = weights(trained[0]), weights(again)
    assert first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_seed_experiment_trains_on_whole_images(faces_folder: Path, tmp_path: Path) -> None:
    done = call(
        "train.py",
        "experiment=seed",
        *TINY,
        f"data.root={faces_folder}",
        "trainer.max_epochs=1",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    checkpoint = torch.load(
        next(tmp_path.glob("outputs/*/*/checkpoints/best.ckpt")), weights_only=True
    )
    assert checkpoint["fkp"]["transforms"]["face_crop"]["full_image"] is True


def test_averaged_weights_are_tested_and_saved(faces_folder: Path, tmp_path: Path) -> None:
    average = (
        "+callbacks.average={_target_: pytorch_lightning.callbacks.EMAWeightAveraging, decay: 0.5}"
    )
    done = call("train.py", *TINY, f"data.root={faces_folder}", average, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = next(tmp_path.glob("outputs/*/*/checkpoints")).parent
    kept = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    moved = [
        not torch.equal(value, kept["current_model_state"][name])
        for name, value in kept["state_dict"].items()
    ]
    assert any(moved)
    data = [
        "data=youtube_faces",
        f"data.root={faces_folder}",
        f"ckpt={run / 'checkpoints/best.ckpt'}",
    ]
    done = call("evaluate.py", *data, cwd=tmp_path)
    metrics = json.loads(done.stdout.splitlines()[-1])
    tested = json.loads((run / "metrics.json").read_text())["test/nme"]
    assert metrics["nme_as_trained"] == pytest.approx(tested, rel=0.02)


def test_mixed_precision_trains(faces_folder: Path, tmp_path: Path) -> None:
    """Train, calibrate confidence, and save the calibration."""
    every = ["trainer.check_val_every_n_epoch=1", "trainer.precision=bf16-mixed"]
    options = ["experiment=shipped", "stages=null", "data=youtube_faces", *every]
    done = call("train.py", *TINY, *options, f"data.root={faces_folder}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("outputs/*/*/metrics.json")
    assert 0 < json.loads(file.read_text())["test/nme"] < 1000
    checkpoint = torch.load(file.parent / "checkpoints/best.ckpt", weights_only=True)
    assert all(isinstance(value, float) for value in checkpoint["fkp"]["codec"]["calibration"])
    image, label = painter.paint(7, 0)
    (face,) = Predictor.load(file.parent / "checkpoints/best.ckpt")(
        image, boxes=face_box(label)[None]
    )
    assert ((face.confidence > 0) & (face.confidence < 1)).all()


def test_fast_dev_run_succeeds(faces_folder: Path, tmp_path: Path) -> None:
    arguments = [
        "+trainer.fast_dev_run=true",
        "datamodule.batch_size=8",
        f"data.root={faces_folder}",
    ]
    done = call("train.py", "data=youtube_faces", "experiment=heatmap", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("best.ckpt")) and not list(tmp_path.rglob("metrics.json"))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["logger=csv"], "csv/version_1/metrics.csv"),
        (["logger=null", "callbacks=null"], "checkpoints/last.ckpt"),
    ],
)
def test_a_run_with_another_logger_or_none_is_tested_and_resumed(
    options: list[str],
    kept: str,
    faces_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also: on a console with ASCII only."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    first = [*TINY, f"data.root={faces_folder}", "trainer.max_epochs=1", "run_dir=run", *options]
    for arguments in (first, ["resume=run", "trainer.max_epochs=2", "allow_changes=true"]):
        done = call("train.py", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert not {"v_num", "FLOPs", "ModelCheckpoint", "font"} & set(
            (done.stdout + done.stderr).replace(":", " ").split()
        )
    assert 0 < json.loads((tmp_path / "run/metrics.json").read_text())["test/nme"] < 100
    assert (tmp_path / "run" / kept).is_file() and not (tmp_path / "lightning_logs").exists()
    checkpoint = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 8 >= checkpoint["global_step"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("trainer.max_epoch=3", "max_epochs"),
        ("trainr.max_epochs=3", "trainer.max_epochs"),
        ("model=two_con", "two_conv"),
        ("trainer.max_epochs=abc", "trainer.max_epochs"),
        ("data.protocol=oficial", "official"),
        ("data.root=/nowhere/at/all", "data.download=true"),
        ("start.from=/nowhere.ckpt", "/nowhere.ckpt"),
        ("start.mode=again", "finetune"),
        ("logger=wandb", "csv, tensorboard"),
        ("debug=x", "augment"),
    ],
)
def test_a_mistake_is_one_message_with_a_hint(argument: str, message: str, tmp_path: Path) -> None:
    done = call("train.py", "data=youtube_faces", argument, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
