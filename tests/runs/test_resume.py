"""Test that `train.py` resumes from its last checkpoint as if uninterrupted, and from weights."""

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import TINY, call, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fkp.inference.predictor import Predictor
from fkp.runs.resume import STOP_SIGNALS, LastCheckpoint

Run = tuple[Path, str]
pytestmark = pytest.mark.slow


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(next((run / "tensorboard").iterdir())))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_a_run_stopped_and_killed_within_epochs_ends_the_same(
    trained: Run, faces_folder: Path, tmp_path: Path, kill: Callable[..., str]
) -> None:
    """Compare weights bit for bit, metrics, and TensorBoard's curves point by point."""
    run = tmp_path / "run"
    options = [*TINY, f"data.root={faces_folder}", f"run_dir={run}", "callbacks.last.minutes=0"]

    # Stopped after step 2, killed in step 4, then resumed to the end.
    stopped = call("train.py", *options, kill({1: signal.SIGTERM, 4: signal.SIGKILL}), cwd=tmp_path)
    assert stopped.returncode == 128 + signal.SIGTERM and "resume=true" in stopped.stderr
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
    assert call("train.py", f"resume={run}", cwd=tmp_path).returncode == -signal.SIGKILL
    done = call("train.py", f"resume={run}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    for key, value in weights(trained[0]).items():
        assert torch.equal(weights(run)[key], value), key
    assert curves(run) == curves(trained[0])
    assert (run / "metrics.json").read_text() == (trained[0] / "metrics.json").read_text()

    again = call("train.py", f"resume={run}", cwd=tmp_path)
    assert again.returncode == 2 and "finished" in again.stderr


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_second_stop_signal_still_saves(number: int, tmp_path: Path) -> None:
    """A cluster signals the process, and so does its parent; only a second Ctrl-C ends at once."""
    last = LastCheckpoint(str(tmp_path))
    last._request_stop(number, None)
    again = pytest.raises(KeyboardInterrupt) if number == signal.SIGINT else nullcontext()
    with again:
        last._request_stop(number, None)
    assert last.stop == number


def test_a_dead_data_loader_process_is_one_message(
    faces_folder: Path, tmp_path: Path, kill: Callable[..., str]
) -> None:
    options = [
        *TINY,
        f"data.root={faces_folder}",
        "datamodule.num_workers=1",
        "callbacks.last.minutes=0",
    ]
    done = call("train.py", *options, kill({2: signal.SIGKILL}, child=True), cwd=tmp_path)
    assert done.returncode == 2 and "datamodule.num_workers=0" in done.stderr
    assert "Traceback" not in done.stderr and "resume=true" in done.stderr
    (last,) = tmp_path.glob("outputs/*/*/checkpoints/last.ckpt")
    torch.load(last, weights_only=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_full_disk_is_one_message_and_keeps_the_previous_checkpoint(
    trained: Run, faces_folder: Path, tmp_path: Path
) -> None:
    """The disk has space for best.ckpt and last.ckpt, but not for a third file."""
    room = int(2.7 * (trained[0] / "checkpoints/last.ckpt").stat().st_size)
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        done = call(
            "train.py", *TINY, f"data.root={faces_folder}", f"run_dir={disk / 'run'}", cwd=tmp_path
        )
        assert done.returncode == 2 and "No space left" in done.stderr
        assert "Traceback" not in done.stderr
        assert torch.load(disk / "run/checkpoints/last.ckpt", weights_only=True)["epoch"] == 0
        assert not list(disk.rglob("*.part"))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_run_is_repeated_from_its_folder(trained: Run, tmp_path: Path) -> None:
    done = call("train.py", f"start.from={trained[0]}", "start.mode=repeat", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (file.parent for file in tmp_path.glob("outputs/*/*/run.yaml"))
    for key, value in weights(trained[0]).items():
        assert torch.equal(weights(run)[key], value), key


def test_a_run_that_validates_every_second_epoch_resumes_exactly(
    faces_folder: Path, tmp_path: Path
) -> None:
    """Its checkpoints are written before the end of their epoch."""
    short = ["model=heatmap", *TINY, f"data.root={faces_folder}", "model.scheduler.total_steps=4"]
    short += [
        "+trainer.check_val_every_n_epoch=2",
        "transforms.rescale.size=64",
        "transforms.random_crop.size=64",
    ]
    for folder, more in (
        ("whole", ["trainer.max_epochs=4"]),
        ("begun", ["trainer.max_epochs=2"]),
        ("ended", ["trainer.max_epochs=4", f"start.from={tmp_path}/begun/checkpoints/last.ckpt"]),
    ):
        done = call("train.py", *short, *more, f"run_dir={tmp_path / folder}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    for key, value in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "ended")[key], value), key


def test_a_run_starts_from_other_weights(trained: Run, faces_folder: Path, tmp_path: Path) -> None:
    best = trained[0] / "checkpoints/best.ckpt"
    one_tiny_step = [f"start.from={best}", "start.mode=finetune"]
    one_tiny_step += ["trainer.max_epochs=1", "model.optimizer.lr=1e-9"]
    done = call("train.py", *TINY, f"data.root={faces_folder}", *one_tiny_step, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = torch.load(next(tmp_path.glob("outputs/*/*/checkpoints/last.ckpt")), weights_only=True)
    for name, value in weights(trained[0], "best").items():
        torch.testing.assert_close(after["state_dict"][name], value, atol=1e-5, rtol=0)


def test_an_unfrozen_backbone_resumes_exactly(faces_folder: Path, tmp_path: Path) -> None:
    """Its checkpoint also predicts without the file of the initial weights."""
    from torchvision.models import shufflenet_v2_x0_5

    torch.save(shufflenet_v2_x0_5().state_dict(), tmp_path / "first.pth")
    transfer = [
        "experiment=transfer",
        "model.network.backbone=shufflenet_v2_x0_5",
        f"model.network.weights={tmp_path}/first.pth",
    ]
    short = [
        *transfer,
        *TINY,
        f"data.root={faces_folder}",
        "callbacks.release.unfreeze_backbone_at_epoch=1",
    ]
    for folder, more in (
        ("whole", ["trainer.max_epochs=3"]),
        ("begun", ["trainer.max_epochs=2"]),
        ("ended", ["trainer.max_epochs=3", f"start.from={tmp_path}/begun/checkpoints/last.ckpt"]),
    ):
        done = call("train.py", *short, *more, f"run_dir={tmp_path / folder}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    first = torch.load(tmp_path / "first.pth", weights_only=True)["conv5.0.weight"]
    name = "network.backbone.5.0.weight"
    assert not torch.equal(weights(tmp_path / "begun")[name], first)
    for key, value in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "ended")[key], value), key
    (tmp_path / "first.pth").unlink()
    assert len(Predictor.load(tmp_path / "whole/checkpoints/best.ckpt").markup.points) == 68
