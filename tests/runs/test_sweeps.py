"""Many runs from one command: what fails is a row, what is finished is not done again, what was killed goes on."""

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
    """The rows of a sweep's report by the job's folder."""
    with (folder / "report.csv").open() as file:
        return {row["folder"]: row for row in csv.DictReader(file)}


def only(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "outputs/sweeps").iterdir()
    return folder


def test_a_folder_is_a_function_of_the_overrides_alone() -> None:
    one = sweeps.name([f"{LR}=0.1", "seed=1", "data.count=9"], [LR, "seed"])
    assert one.startswith("lr-0.1_seed-1_") and one != sweeps.name(
        [f"{LR}=0.1", "seed=1"], [LR, "seed"]
    )
    assert (
        one.rpartition("_")[2]
        == sweeps.name(["data.count=9", "seed=1", f"{LR}=0.1"], []).rpartition("_")[2]
    )
    for odd in ("a/../../b", "x=y,z", "'quoted \"', ü", "k" * 300):
        name = sweeps.name([f"data.root={odd}"], ["data.root"])
        assert (
            "/" not in name and name != ".." and len(name) < 100 and not set(name) & set("=,'\" ")
        )


def test_the_same_command_means_the_same_sweep() -> None:
    told = sweeps.arguments(["-m", "seed=0,1", f"{LR}=0.1"])
    assert told[0] == "-m" and told[2:] == ["seed=0,1", f"{LR}=0.1"]
    assert told[1].startswith("hydra.sweep.dir=outputs/sweeps/seed_")
    for same in (
        [f"{LR}=0.1", "seed=0,1", "-m"],
        ["--multirun", "hydra/launcher=joblib", f"{LR}=0.1", "seed=0,1"],
    ):
        assert told[1] in sweeps.arguments(same)
    assert told[1] not in sweeps.arguments(["-m", "seed=0,2", f"{LR}=0.1"])
    assert sweeps.arguments(["-m", "seed=0,1", "hydra.sweep.dir=mine"]) == [
        "-m",
        "seed=0,1",
        "hydra.sweep.dir=mine",
    ]
    assert sweeps.arguments(["seed=1"]) == ["seed=1"]  # no sweep
    for single in ("resume=true", "repeat=x", "run_dir=y"):
        with pytest.raises(FkpError, match="not for a sweep"):
            sweeps.arguments(["-m", single, "seed=0,1"])


@pytest.mark.slow
def test_a_failed_and_a_killed_job_are_rows_and_the_same_command_goes_on(
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
    assert (
        first.returncode == 2
        and "2 of 3 jobs are not finished (1 stopped, 1 failed)" in first.stderr
    )
    folder = only(tmp_path)
    killed, failed, finished = jobs(folder)
    before = jobs(folder)
    assert [row["state"] for row in before.values()] == ["stopped", "failed", "finished"]
    assert "the loss is" in before[failed]["error"] and before[finished][LR] == "0.01"
    written = (folder / finished / "metrics.json").stat().st_mtime_ns
    again = call(*command, cwd=tmp_path)
    assert again.returncode == 2 and "1 of 3 jobs are not finished (1 failed)" in again.stderr
    after = jobs(folder)
    assert {name: row["attempts"] for name, row in after.items()} == {
        killed: "2",
        failed: "2",
        finished: "1",
    }
    assert (folder / finished / "metrics.json").stat().st_mtime_ns == written
    for key, value in weights(trained[0]).items():  # of an unbroken run with the same learning rate
        assert torch.equal(weights(folder / killed)[key], value), key
    faces = list(csv.DictReader((folder / killed / "val_faces.csv").open()))
    best = json.loads((folder / killed / "metrics.json").read_text())["val/best_nme"]
    assert sum(float(face["nme"]) for face in faces) / len(faces) == pytest.approx(best, abs=2e-3)
    assert float(after[killed]["val_nme"]) == pytest.approx(best)
    told = subprocess.run(
        [sys.executable, "-m", "fkp.runs.report", f"sweep={folder}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert json.loads(told.stdout.splitlines()[-1])["jobs_failed"] == 1


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process that its parent has died"
)
def test_a_killed_driver_loses_nothing(faces_folder: Path, tmp_path: Path) -> None:
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
    driver.kill()
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
def test_joblib_trains_several_at_a_time(faces_folder: Path, tmp_path: Path) -> None:
    options = [*TINY, f"data.root={faces_folder}", "seed=1,2", "trainer.max_epochs=1"]
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "-m",
        *options,
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True
    )  # what forks is no place for joblib
    assert done.returncode == 0, done.stderr
    one, two = (only(tmp_path) / name for name in jobs(only(tmp_path)))
    assert not torch.equal(weights(one)["network.head.bias"], weights(two)["network.head.bias"])


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason="needs Optuna")
def test_optuna_goes_on_with_its_study(faces_folder: Path, tmp_path: Path) -> None:
    import optuna

    options = [
        *TINY,
        f"data.root={faces_folder}",
        "trainer.max_epochs=1",
        f"{LR}=tag(log, interval(0.001, 0.1))",
    ]
    for trials in (1, 2):
        told = ["-m", "hydra/sweeper=optuna", f"hydra.sweeper.n_trials={trials}"]
        done = call("train.py", *told, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    folder = only(tmp_path)
    study = optuna.load_study(study_name="fkp", storage=f"sqlite:///{folder / 'study.db'}")
    figures = sorted(float(row["val_nme"]) for row in jobs(folder).values())
    assert (
        sorted(trial.value or 0 for trial in study.trials) == pytest.approx(figures)
        and len(figures) == 2
    )
    assert all(0.001 <= trial.params[LR] <= 0.1 for trial in study.trials)


@pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason="needs Optuna")
def test_what_optuna_draws_from() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from hydra_plugins.fkp_sweeps import _distribution

    wanted: dict[str, Any] = {
        "a=x,y": CategoricalDistribution(["x", "y"]),
        "a=range(1,8,2)": IntDistribution(1, 7, step=2),
        "a=interval(0.5,1)": FloatDistribution(0.5, 1.0),
        "a=int(interval(1,9))": IntDistribution(1, 9),
        "a=tag(log,interval(0.001,1))": FloatDistribution(0.001, 1.0, log=True),
    }
    for override, distribution in wanted.items():
        (parsed,) = OverridesParser.create().parse_overrides([override])
        assert _distribution(parsed) == distribution
    (shuffled,) = OverridesParser.create().parse_overrides(["a=shuffle(range(1,4))"])
    with pytest.raises(FkpError, match="choices, a range or an interval"):
        _distribution(shuffled)


def test_threads_are_shared_among_jobs_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("joblib")
    from omegaconf import OmegaConf

    monkeypatch.delenv("OMP_NUM_THREADS")
    assert sweeps._threads(OmegaConf.create({"n_jobs": 1})).get("OMP_NUM_THREADS") == str(
        os.cpu_count()
    )
    assert sweeps._threads(OmegaConf.create({"n_jobs": 10_000}))["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in sweeps._threads(OmegaConf.create({}))
