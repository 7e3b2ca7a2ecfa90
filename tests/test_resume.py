"""The real `train.py` goes on: from its last checkpoint as if it had never stopped, and from other weights."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, call, weights

from fkp.predictor import Predictor

Run = tuple[Path, str]
pytestmark = pytest.mark.slow


def test_a_run_goes_on_from_its_last_checkpoint(trained: Run, faces_folder: Path, tmp_path: Path) -> None:
    last = trained[0] / "checkpoints/last.ckpt"
    more = [*TINY, f"data.root={faces_folder}", f"ckpt_path={last}", "trainer.max_epochs=3"]
    done = call("train.py", *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before = torch.load(last, weights_only=True)
    after = torch.load(next(tmp_path.glob("outputs/*/*/checkpoints/last.ckpt")), weights_only=True)
    assert (before["epoch"], after["epoch"]) == (1, 2)
    assert after["global_step"] == before["global_step"] * 3 // 2


def test_a_run_that_validates_now_and_then_goes_on_as_if_unbroken(faces_folder: Path, tmp_path: Path) -> None:
    """Its checkpoints are written before the end of their epoch."""
    short = ["model=heatmap", *TINY, f"data.root={faces_folder}", "model.scheduler.total_steps=4"]
    short += ["+trainer.check_val_every_n_epoch=2", "crop.rescale.size=64", "crop.crop.size=64"]
    for folder, more in (
        ("whole", ["trainer.max_epochs=4"]),
        ("begun", ["trainer.max_epochs=2"]),
        ("ended", ["trainer.max_epochs=4", f"ckpt_path={tmp_path}/begun/checkpoints/last.ckpt"]),
    ):
        done = call("train.py", *short, *more, f"run_dir={tmp_path / folder}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    for key, value in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "ended")[key], value), key


def test_a_run_starts_from_other_weights(trained: Run, faces_folder: Path, tmp_path: Path) -> None:
    best = trained[0] / "checkpoints/best.ckpt"
    still = [f"weights={best}", "trainer.max_epochs=1", "model.optimizer.lr=1e-9"]
    done = call("train.py", *TINY, f"data.root={faces_folder}", *still, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = torch.load(next(tmp_path.glob("outputs/*/*/checkpoints/last.ckpt")), weights_only=True)
    for name, value in weights(trained[0], "best").items():
        torch.testing.assert_close(after["state_dict"][name], value, atol=1e-5, rtol=0)


def test_a_released_backbone_goes_on_as_if_unbroken(faces_folder: Path, tmp_path: Path) -> None:
    """Also: its checkpoint predicts without the weights it began with."""
    from torchvision.models import shufflenet_v2_x0_5

    torch.save(shufflenet_v2_x0_5().state_dict(), tmp_path / "first.pth")
    transfer = [
        "experiment=transfer",
        "model.network.backbone=shufflenet_v2_x0_5",
        f"model.network.weights={tmp_path}/first.pth",
    ]
    short = [*transfer, *TINY, f"data.root={faces_folder}", "callbacks.release.unfreeze_backbone_at_epoch=1"]
    for folder, more in (
        ("whole", ["trainer.max_epochs=3"]),
        ("begun", ["trainer.max_epochs=2"]),
        ("ended", ["trainer.max_epochs=3", f"ckpt_path={tmp_path}/begun/checkpoints/last.ckpt"]),
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
