"""Test cross-validation by person: its command line, its pooled metrics, and a real one."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, TINY, call

from fkp.errors import FkpError
from fkp.metrics import summary
from fkp.runs import cross_validation, fold_results, report, sweep_results, sweeps


def test_folds_are_a_sweep_with_the_folder_of_the_run() -> None:
    given = ["data=csv", "data.folds=3", "run_dir=out", "seed=1"]
    option, *rest = cross_validation.arguments(given)
    assert option == "-m" and "run_dir=out" not in rest
    assert {"data.fold=0,1,2", "hydra/sweeper=folds", "hydra.sweep.dir=out"} <= set(rest)
    assert {"data=csv", "data.folds=3", "seed=1"} <= set(rest)

    # Without a folder: one that the overrides name, whatever their order.
    (named,) = [
        one for one in cross_validation.arguments(["data.folds=3", "seed=1"]) if "sweep.dir" in one
    ]
    assert named in cross_validation.arguments(["seed=1", "data.folds=3"])
    assert named not in cross_validation.arguments(["seed=1", "data.folds=4"])


def test_other_command_lines_are_left_as_they_are() -> None:
    for same in (
        ["seed=1"],
        ["data.folds=3", "data.fold=1"],
        ["data.folds=null"],
        ["data.folds=1"],  # refused by the check of the configuration
        ["data.folds=x"],
    ):
        assert cross_validation.arguments(same) == same
    with pytest.raises(FkpError, match="resume"):
        cross_validation.arguments(["data.folds=3", "resume=true"])


def test_with_a_sweep_every_setting_is_trained_on_every_fold() -> None:
    rest = cross_validation.arguments(["-m", "data.folds=3", "seed=0,1"])
    assert "data.fold=0,1,2" in rest and "hydra/sweeper=folds" not in rest


def test_the_final_model_has_the_overrides_of_the_folds() -> None:
    final = cross_validation.final_job(["data.fold=0", "data.folds=3", "seed=1"])
    assert final == ["data.folds=3", "seed=1", "data.fold=all", "hydra.sweep.subdir=."]


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    jobs = [["data.fold=0"], ["data.fold=1"]]
    cross_validation.refuse_others(tmp_path, jobs)  # empty
    sweeps.add_jobs(tmp_path, ["data.fold"], jobs)
    other = [*jobs, ["data.fold=2"]]
    cross_validation.refuse_others(tmp_path, other)  # none has begun
    sweeps.add_jobs(tmp_path, ["data.fold"], jobs)
    begun = tmp_path / "fold-0" / "run.yaml"
    begun.parent.mkdir()
    begun.touch()
    cross_validation.refuse_others(tmp_path, jobs)  # the same again
    with pytest.raises(FkpError) as refused:
        cross_validation.refuse_others(tmp_path, other)
    assert refused.value.key == "run_dir" and refused.value.file == tmp_path

    # A run instead of a sweep.
    (tmp_path / sweeps.JOBS).unlink()
    begun.rename(tmp_path / "run.yaml")
    with pytest.raises(FkpError):
        cross_validation.refuse_others(tmp_path, jobs)


def test_a_mistake_that_all_folds_share_is_told_by_the_first(tmp_path: Path) -> None:
    cross_validation.refuse_mistake(tmp_path)  # not tried yet
    (tmp_path / sweeps.OUTPUT).write_text("a log\nrow 3: no image\nCorrect it.\n")
    for code, begun, refused in ((0, False, False), (1, True, False), (2, False, True)):
        (tmp_path / sweeps.ATTEMPTS).write_text(json.dumps({"code": code}))
        (tmp_path / "run.yaml").touch() if begun else (tmp_path / "run.yaml").unlink(True)
        with pytest.raises(FkpError, match="row 3") if refused else nullcontext():
            cross_validation.refuse_mistake(tmp_path)


def faces(fold: int, count: int = 20) -> pd.DataFrame:
    rng = np.random.default_rng(fold)
    names = [f"{fold}-{i}" for i in range(count)]
    return pd.DataFrame({"face": names, "identity": names, "nme": rng.gamma(4, 2, count)})


def finished(folder: Path, tested: pd.DataFrame) -> None:
    folder.mkdir()
    tested.to_csv(folder / fold_results.FACES, index=False)
    tested.rename(columns={}).to_csv(folder / sweep_results.FACES, index=False)
    metrics = {f"test/{name}": value for name, value in summary(tested["nme"] / 100).items()}
    (folder / sweeps.METRICS).write_text(json.dumps(metrics | {sweeps.VALUE: 5.0}))


def test_folds_are_pooled_and_a_failed_one_is_a_row(tmp_path: Path) -> None:
    jobs = [[f"data.fold={fold}"] for fold in range(4)]
    sweeps.add_jobs(tmp_path, ["data.fold"], jobs)
    names = [sweeps.folder_name(job, ["data.fold"]) for job in jobs]
    tables = [faces(fold, 10 + 5 * fold) for fold in range(3)]
    for name, table in zip(names, tables, strict=False):
        finished(tmp_path / name, table)
    (tmp_path / names[3]).mkdir()
    record = {"code": 1, "error": "no memory", "attempts": 1}
    (tmp_path / names[3] / sweeps.ATTEMPTS).write_text(json.dumps(record))

    with pytest.raises(FkpError, match="1 of 4"):
        report.close(tmp_path)
    written = json.loads((tmp_path / fold_results.FILE).read_text())
    assert [row["state"] for row in written["each_fold"]] == ["finished"] * 3 + ["failed"]
    assert (
        written["each_fold"][3]["error"] == "no memory" and written["each_fold"][3]["nme"] is None
    )
    assert written["folds_finished"] == 3 and written["folds"] == 4

    # The mean over folds, and the metrics over faces.
    means = [table["nme"].mean() for table in tables]
    pooled = pd.concat(tables)["nme"]
    assert written["nme_mean"] == pytest.approx(np.mean(means), abs=1e-3)
    assert written["nme_std"] == pytest.approx(np.std(means, ddof=1), abs=1e-3)
    assert written["nme"] == pytest.approx(pooled.mean(), abs=1e-3)
    assert written["fr8"] == pytest.approx(100 * (pooled > 8).mean(), abs=1e-3)
    assert written["nme_low"] < written["nme"] < written["nme_high"]
    assert len(pd.read_csv(tmp_path / fold_results.OUT_OF_FOLD)) == written["faces"] == 45
    assert "Cross-validation" in (tmp_path / "report.html").read_text()


def test_settings_are_compared_over_all_folds(tmp_path: Path) -> None:
    jobs = [[f"lr={lr}", f"data.fold={fold}"] for lr in (0, 1) for fold in range(3)]
    sweeps.add_jobs(tmp_path, ["lr", "data.fold"], jobs)
    for lr, fold in ((int(job[0][-1]), int(job[1][-1])) for job in jobs):
        name = sweeps.folder_name([f"lr={lr}", f"data.fold={fold}"], ["lr", "data.fold"])
        table = faces(fold)
        finished(tmp_path / name, table.assign(nme=table["nme"] + lr))
        metrics = json.loads((tmp_path / name / sweeps.METRICS).read_text())
        metrics[sweeps.VALUE] = table["nme"].mean() + lr
        (tmp_path / name / sweeps.METRICS).write_text(json.dumps(metrics))
    results = sweep_results.read(tmp_path)
    assert list(results.settings["setting"]) == ["lr 0", "lr 1"]
    assert list(results.settings["runs"]) == [3, 3]
    assert results.settings["low"][1] == pytest.approx(1, abs=1e-6)
    assert fold_results.read(results.jobs, tmp_path) is None


# Stands for train.py: it trains nothing, and fold 1 fails as long as there is a file `broken`.
SCRIPT = """
import json
from pathlib import Path
from fkp.runs import command_line, cross_validation, sweeps

@command_line.main("train", cross_validation.arguments, sweeps.job)
def train(cfg):
    run = Path(cfg.run_dir)
    (run / "run.yaml").touch()
    if cfg.data.fold == 1 and Path("broken").exists():
        (run / "run.yaml").unlink()  # it cannot be resumed
        raise SystemExit("no memory")
    (run / "test_faces.csv").write_text(f"face,identity,nme\\nf{cfg.data.fold},Ada,4.0\\n")
    (run / "metrics.json").write_text(json.dumps({"val/best_nme": 3.0, "test/nme": 4.0}))

train()
"""


@pytest.mark.slow
def test_a_failed_fold_is_trained_again_and_then_the_final_model(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    (tmp_path / "broken").touch()

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "script.py", "data.folds=2", "run_dir=out"]
        paths = {"PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | paths
        )

    def attempts() -> dict[str, int]:
        files = (tmp_path / "out").rglob(sweeps.ATTEMPTS)
        return {file.parent.name: json.loads(file.read_text())["attempts"] for file in files}

    first = run()
    assert first.returncode == 2 and "1 of 2 jobs" in first.stderr, first.stderr
    assert sorted(attempts().values()) == [1, 1] and "out" not in attempts()

    (tmp_path / "broken").unlink()
    second = run()
    assert second.returncode == 0, second.stderr
    assert sorted(attempts().values()) == [1, 1, 2] and attempts()["out"] == 1
    written = json.loads((tmp_path / "out" / fold_results.FILE).read_text())
    assert written["folds_finished"] == written["faces"] == 2 and written["nme"] == 4
    assert "4.00" in second.stdout


@pytest.mark.slow
def test_the_final_model_is_trained_without_test_faces(faces_folder: Path, tmp_path: Path) -> None:
    options = [*TINY, "trainer.max_epochs=1", f"data.root={faces_folder}", "run_dir=out"]
    done = call("train.py", *options, "data.folds=4", "data.fold=all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert list(metrics) == [sweeps.VALUE]
    assert (tmp_path / "out/checkpoints/best.ckpt").is_file()
