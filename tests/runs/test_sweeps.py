"""Test sweeps: failed jobs are rows, finished ones are not run again, killed ones are resumed."""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, TINY, call, weights

from fkp.errors import FkpError
from fkp.runs import sweeps

LR = "model.optimizer.lr"


def jobs(folder: Path) -> dict[str, dict[str, str]]:
    """Read the rows of a sweep's report: folder of a job -> row."""
    with (folder / "report.csv").open() as file:
        return {row["folder"]: row for row in csv.DictReader(file)}


def sweep_folder(tmp_path: Path) -> Path:
    """Return the folder of the only sweep."""
    (folder,) = (tmp_path / "outputs/sweeps").iterdir()
    return folder


def test_a_folder_is_a_function_of_the_overrides_alone() -> None:
    overrides = [f"{LR}=0.1", "seed=1", "data.count=9"]
    name = sweeps.folder_name(overrides, [LR, "seed"])
    assert name.startswith("lr-0.1_seed-1_")
    assert name != sweeps.folder_name(overrides[:2], [LR, "seed"])

    # The hash does not depend on the order, nor on what is shown.
    other = sweeps.folder_name(overrides[::-1], [])
    assert name.rpartition("_")[2] == other.rpartition("_")[2]

    for odd in ("a/../../b", "x=y,z", "'quoted \"', ü", "k" * 300):
        name = sweeps.folder_name([f"data.root={odd}"], ["data.root"])
        assert "/" not in name and name != ".."
        assert len(name) < 100 and not set(name) & set("=,'\" ")


def test_the_same_command_means_the_same_sweep() -> None:
    option, folder, *rest = sweeps.arguments(["-m", "seed=0,1", f"{LR}=0.1"])
    assert option == "-m" and rest == ["seed=0,1", f"{LR}=0.1"]
    assert folder.startswith("hydra.sweep.dir=outputs/sweeps/seed_")
    for same in (
        [f"{LR}=0.1", "seed=0,1", "-m"],
        ["--multirun", "hydra/launcher=joblib", f"{LR}=0.1", "seed=0,1"],
    ):
        assert folder in sweeps.arguments(same)
    assert folder not in sweeps.arguments(["-m", "seed=0,2", f"{LR}=0.1"])

    own_folder = ["-m", "seed=0,1", "hydra.sweep.dir=mine"]
    assert sweeps.arguments(own_folder) == own_folder
    assert sweeps.arguments(["seed=1"]) == ["seed=1"]  # no sweep
    for single in ("resume=true", "repeat=x", "start.mode=repeat", "run_dir=y"):
        with pytest.raises(FkpError, match=single.split("=")[0]):
            sweeps.arguments(["-m", single, "seed=0,1"])


@pytest.mark.slow
def test_a_failed_and_a_killed_job_are_rows_and_the_same_command_continues(
    trained: tuple[Path, str], faces_folder: Path, tmp_path: Path, kill: Callable[..., str]
) -> None:
    root, values = f"data.root={faces_folder}", f"{LR}=0.06,1e38,0.01"
    command = [
        "train.py",
        "-m",
        *TINY,
        root,
        values,
        "callbacks.last.minutes=0",
        kill({5: signal.SIGKILL}),
    ]
    first = call(*command, cwd=tmp_path)
    assert first.returncode == 2
    assert "2 of 3 jobs are not finished (1 stopped, 1 failed)" in first.stderr
    folder = sweep_folder(tmp_path)
    killed, failed, finished = jobs(folder)
    before = jobs(folder)
    assert [row["state"] for row in before.values()] == ["stopped", "failed", "finished"]
    assert "loss" in before[failed]["error"] and before[finished][LR] == "0.01"
    written = (folder / finished / "metrics.json").stat().st_mtime_ns

    # Again: the killed job is resumed, the failed one fails again, the finished one is left alone.
    again = call(*command, cwd=tmp_path)
    assert again.returncode == 2 and "1 of 3 jobs are not finished (1 failed)" in again.stderr
    after = jobs(folder)
    assert {name: row["attempts"] for name, row in after.items()} == {
        killed: "2",
        failed: "2",
        finished: "1",
    }
    assert (folder / finished / "metrics.json").stat().st_mtime_ns == written

    # The resumed job equals an uninterrupted run with the same learning rate.
    for key, value in weights(trained[0]).items():
        assert torch.equal(weights(folder / killed)[key], value), key
    faces = list(csv.DictReader((folder / killed / "val_faces.csv").open()))
    best = json.loads((folder / killed / "metrics.json").read_text())["val/best_nme"]
    assert sum(float(face["nme"]) for face in faces) / len(faces) == pytest.approx(best, abs=2e-3)
    assert float(after[killed]["val_nme"]) == pytest.approx(best)

    printed = subprocess.run(
        [sys.executable, "-m", "fkp.runs.report", f"sweep={folder}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert json.loads(printed.stdout.splitlines()[-1])["jobs_failed"] == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the death of a parent")
def test_a_killed_sweep_loses_nothing(faces_folder: Path, tmp_path: Path) -> None:
    options = [
        *TINY,
        f"data.root={faces_folder}",
        "seed=3,4",
        "trainer.max_epochs=200",
        "callbacks.last.minutes=0",
    ]
    driver = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "-m", *options], cwd=tmp_path
    )
    until = time.monotonic() + 120
    while (
        not list(tmp_path.glob("outputs/sweeps/*/*/checkpoints/last.ckpt"))
        and time.monotonic() < until
    ):
        time.sleep(0.05)
    driver.kill()  # its job gets SIGTERM, saves and stops
    driver.wait()
    (job,) = (
        path.parent.parent for path in tmp_path.glob("outputs/sweeps/*/*/checkpoints/last.ckpt")
    )
    while "stopped; " not in (job / sweeps.OUTPUT).read_text() and time.monotonic() < until:
        time.sleep(0.05)
    kept = torch.load(job / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert kept > 0 and not (job / "metrics.json").exists()
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        f"resume={job}",
        "trainer.max_epochs=1",
        "allow_changes=true",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    not importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher"),
    reason="needs joblib's plugin",
)
def test_joblib_runs_simultaneous_jobs(faces_folder: Path, tmp_path: Path) -> None:
    options = [*TINY, f"data.root={faces_folder}", "seed=1,2", "trainer.max_epochs=1"]
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "-m",
        *options,
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    ]
    # Not by `call`: joblib does not work in a forked process.
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = (sweep_folder(tmp_path) / name for name in jobs(sweep_folder(tmp_path)))
    assert not torch.equal(weights(one)["network.head.bias"], weights(two)["network.head.bias"])


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason="needs Optuna")
def test_optuna_continues_its_study(faces_folder: Path, tmp_path: Path) -> None:
    import optuna

    options = [
        *TINY,
        f"data.root={faces_folder}",
        "trainer.max_epochs=1",
        f"{LR}=tag(log, interval(0.001, 0.1))",
    ]
    for trials in (1, 2):
        sweep = ["-m", "hydra/sweeper=optuna", f"hydra.sweeper.n_trials={trials}"]
        done = call("train.py", *sweep, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    folder = sweep_folder(tmp_path)
    study = optuna.load_study(study_name="fkp", storage=f"sqlite:///{folder / 'study.db'}")
    values = sorted(float(row["val_nme"]) for row in jobs(folder).values())
    assert len(values) == 2
    assert sorted(trial.value or 0 for trial in study.trials) == pytest.approx(values)
    assert all(0.001 <= trial.params[LR] <= 0.1 for trial in study.trials)


@pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason="needs Optuna")
def test_values_of_an_override_become_a_distribution() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from hydra_plugins.fkp_sweeps import _distribution

    expected: dict[str, Any] = {
        "a=x,y": CategoricalDistribution(["x", "y"]),
        "a=range(1,8,2)": IntDistribution(1, 7, step=2),
        "a=interval(0.5,1)": FloatDistribution(0.5, 1.0),
        "a=int(interval(1,9))": IntDistribution(1, 9),
        "a=tag(log,interval(0.001,1))": FloatDistribution(0.001, 1.0, log=True),
    }
    for override, distribution in expected.items():
        (parsed,) = OverridesParser.create().parse_overrides([override])
        assert _distribution(parsed) == distribution
    (shuffled,) = OverridesParser.create().parse_overrides(["a=shuffle(range(1,4))"])
    with pytest.raises(FkpError, match="a=shuffle"):
        _distribution(shuffled)


def test_simultaneous_jobs_share_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("joblib")
    from omegaconf import OmegaConf

    monkeypatch.delenv("OMP_NUM_THREADS")
    one, many, unknown = (
        sweeps._environment(OmegaConf.create(launcher)).get("OMP_NUM_THREADS")
        for launcher in ({"n_jobs": 1}, {"n_jobs": 10_000}, {})
    )
    assert (one, many, unknown) == (str(os.cpu_count()), "1", None)
