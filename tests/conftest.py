"""Define the fixtures of the tests: small synthetic data, a finished run, a cache of their own."""

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

# Seconds after which a script is stopped.
TIMEOUT = 300


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's cache and the network out of the tests."""
    os.environ["FKP_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["FKP_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def faces_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 synthetic faces of 20 people in the published layout.

    There are 32 training rows, and 8 test rows of the same people.
    """
    root = tmp_path_factory.mktemp("faces")
    for split, frames in (("training", range(32)), ("test", range(32, 40))):
        names, points = [], []
        for i in frames:
            image, label = painter.paint(7, i)
            names.append(f"Person_{i % 20:02d}_{i:02d}.png")
            points.append(label)
            write_image(root / split / names[-1], image)
        write_csv(root / f"{split}_frames_keypoints.csv", names, np.stack(points))
    return root


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real faces; tests that use it are marked `real`."""
    folder = os.environ.get("FKP_SHARED")
    if not folder:
        pytest.skip("FKP_SHARED does not name the folder of real faces")
    return Path(folder)


# Starts the processes of the scripts, with the libraries already imported: the imports take five
# times as long as most scripts.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["torch", "pytorch_lightning", "torchmetrics", "hydra", "cv2", "pandas", "rich"]
)


def call(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run an entry script as a user does, in a process of its own.

    Args:
        script: its file name.
        arguments: its command line.
        cwd: the working directory.

    Raises:
        subprocess.TimeoutExpired: it takes longer than `TIMEOUT` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = SERVER.Process(
            target=_script, args=(script, arguments, cwd, dict(os.environ), out, err)
        )
        process.start()
        process.join(TIMEOUT)

        command = [script, *arguments]
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, TIMEOUT, out.read_text(), err.read_text())
        return subprocess.CompletedProcess(
            command, process.exitcode, out.read_text(), err.read_text()
        )


def _script(
    script: str,
    arguments: tuple[str, ...],
    cwd: Path,
    environment: dict[str, str],
    out: Path,
    err: Path,
) -> None:
    """Run a script in this process, as Python does from a command line."""
    os.environ.clear()
    os.environ |= environment
    os.chdir(cwd)
    sys.path[:0] = [str(ROOT), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]

    # Redirect the descriptors, too: libraries in C write to them.
    for number, (name, file) in enumerate((("stdout", out), ("stderr", err)), 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
        encoding = environment.get("PYTHONIOENCODING", "utf-8")
        setattr(sys, name, open(number, "w", encoding=encoding, closefd=False))  # noqa: SIM115

    sys.argv = [str(ROOT / script), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    """Read the weights in a checkpoint of a finished run."""
    return torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put slow tests first, so that no process ends with a long one; run SLURM tests on request."""
    if "slurm" not in config.option.markexpr:
        items[:] = [item for item in items if not item.get_closest_marker("slurm")]
    items.sort(key=lambda item: "slow" not in item.keywords)


# A training run of a few seconds.
TINY = (
    "data=youtube_faces",
    "datamodule.batch_size=8",
    "trainer.max_epochs=2",
    "model.network.width=4",
    "trainer.log_every_n_steps=1",
)


@pytest.fixture(scope="session")
def trained(faces_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a small finished run, and what it printed."""
    cwd = tmp_path_factory.mktemp("work")
    done = call("train.py", *TINY, f"data.root={faces_folder}", cwd=cwd)
    assert done.returncode == 0, done.stderr
    (checkpoint,) = cwd.glob("outputs/*/*/checkpoints/best.ckpt")
    return checkpoint.parent.parent, done.stdout


@pytest.fixture
def kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that makes the override which adds a `killer.Kill` to a run."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))

    def override(at: dict[int, int], child: bool = False) -> str:
        steps = ", ".join(f"{step}: {int(number)}" for step, number in at.items())
        arguments = f"at: {{{steps}}}, folder: {tmp_path}, child: {str(child).lower()}"
        return f"+callbacks.kill={{_target_: killer.Kill, {arguments}}}"

    return override
