"""Tiny generated data, caches and outputs that belong to the test session alone."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fkp import painter
from fkp.data.labelled_csv import write_csv
from fkp.files.images import write_image

ROOT = Path(__file__).parent.parent
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["FKP_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def faces_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 drawn faces of 20 people in the published layout: 32 training rows, 8 test rows of the same people."""
    root = tmp_path_factory.mktemp("faces")
    for part, frames in (("training", range(32)), ("test", range(32, 40))):
        names, points = [], []
        for i in frames:
            image, label = painter.paint(7, i)
            names.append(f"Person_{i % 20:02d}_{i:02d}.png")
            points.append(label)
            write_image(root / part / names[-1], image)
        write_csv(root / f"{part}_frames_keypoints.csv", names, np.stack(points))
    return root


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real faces; tests that ask for them are marked `real`."""
    folder = os.environ.get("FKP_SHARED")
    if not folder:
        pytest.skip("FKP_SHARED does not name the folder of real faces")
    return Path(folder)


SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["torch", "pytorch_lightning", "torchmetrics", "hydra", "cv2", "pandas", "rich"]
)


def call(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run one of the entry scripts as a user does, in a process of its own, which only finds the libraries imported:
    they take five times as long as what most tests look at."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = SERVER.Process(
            target=_script, args=(script, arguments, cwd, dict(os.environ), out, err)
        )
        process.start()
        process.join(300)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(
                [script, *arguments], 300, out.read_text(), err.read_text()
            )
        return subprocess.CompletedProcess(
            [script, *arguments], process.exitcode, out.read_text(), err.read_text()
        )


def _script(
    script: str,
    arguments: tuple[str, ...],
    cwd: Path,
    environment: dict[str, str],
    out: Path,
    err: Path,
) -> None:
    """What Python would do with a command line."""
    os.environ.clear()
    os.environ |= environment
    os.chdir(cwd)
    sys.path[:0] = [str(ROOT), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    for number, (name, file) in enumerate((("stdout", out), ("stderr", err)), 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
        encoding = environment.get("PYTHONIOENCODING", "utf-8")
        setattr(sys, name, open(number, "w", encoding=encoding, closefd=False))  # noqa: SIM115
    sys.argv = [str(ROOT / script), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    """What the network of a finished run's checkpoint has learnt."""
    return torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files of slow tests first, so that no process is left with a long one at the end; SLURM only if asked for."""
    if "slurm" not in config.option.markexpr:
        items[:] = [item for item in items if not item.get_closest_marker("slurm")]
    items.sort(key=lambda item: "slow" not in item.keywords)


TINY = (
    "data=youtube_faces",
    "datamodule.batch_size=8",
    "trainer.max_epochs=2",
    "model.network.width=4",
    "trainer.log_every_n_steps=1",
)


@pytest.fixture(scope="session")
def trained(faces_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a tiny finished run, and what it printed."""
    cwd = tmp_path_factory.mktemp("work")
    done = call("train.py", *TINY, f"data.root={faces_folder}", cwd=cwd)
    assert done.returncode == 0, done.stderr
    (checkpoint,) = cwd.glob("outputs/*/*/checkpoints/best.ckpt")
    return checkpoint.parent.parent, done.stdout


@pytest.fixture
def kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The override that puts a killer into a run."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))

    def override(at: dict[int, int], child: bool = False) -> str:
        steps = ", ".join(f"{step}: {int(number)}" for step, number in at.items())
        child_too = str(child).lower()
        return f"+callbacks.kill={{_target_: killer.Kill, at: {{{steps}}}, folder: {tmp_path}, child: {child_too}}}"

    return override
