"""Test the report of a sweep: the comparison of settings and the state of every job."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from fkp.errors import FkpError
from fkp.runs import provenance, report, sweep_results, sweeps
from fkp.runs.sweep_results import paired_interval, verdict


def faces(nme: np.ndarray, identities: int = 20) -> pd.DataFrame:
    numbers = range(len(nme))
    index = pd.Index([f"{i}.png" for i in numbers], name="face")
    return pd.DataFrame({"identity": [str(i % identities) for i in numbers], "nme": nme}, index)


def finish(folder: Path, nme: np.ndarray) -> None:
    folder.mkdir(parents=True)
    faces(nme).to_csv(folder / sweep_results.FACES)
    metrics = {sweeps.VALUE: float(nme.mean()), "test/nme": 9.0}
    (folder / sweeps.METRICS).write_text(json.dumps(metrics))


def test_a_setting_is_no_better_than_itself_and_better_than_a_worse_one() -> None:
    rng = np.random.default_rng(0)
    errors = rng.gamma(4, 1, 200)
    one = {"0": faces(errors)}
    shuffled = {"0": faces(errors).sample(frac=1, random_state=0)}
    assert paired_interval(one, shuffled) == (0, 0)

    low, high = paired_interval({"0": faces(errors + 0.5)}, one)
    assert low == pytest.approx(0.5) and high == pytest.approx(0.5)

    low, high = paired_interval({"0": faces(errors + rng.normal(0, 1, 200))}, one)
    assert low < 0 < high and verdict(low, high) == "no difference seen"
    assert np.isnan(paired_interval({"0": faces(errors[:-1])}, one)).all()


def test_seeds_widen_the_interval() -> None:
    errors = np.random.default_rng(0).gamma(4, 1, 100)
    best = {str(seed): faces(errors) for seed in range(4)}
    others = {str(seed): faces(errors + shift) for seed, shift in enumerate((-0.3, 0.3, -0.3, 0.4))}
    low, high = paired_interval(others, best)
    assert low < 0 < high and high - low > 0.3

    # Without common seeds the means over seeds are compared; here all faces shift alike.
    unpaired = {f"other {seed}": table for seed, table in others.items()}
    assert np.allclose(paired_interval(unpaired, best), 0.025)


def test_every_job_has_a_row_whatever_its_state(tmp_path: Path) -> None:
    names = ("good", "bad", "running", "failed", "killed", "waiting", "<b>")
    overrides = {name: [f"lr={i}", "seed=0"] for i, name in enumerate(names)}
    (tmp_path / sweeps.JOBS).write_text(json.dumps({"swept": ["lr", "seed"], "jobs": overrides}))
    errors = np.random.default_rng(0).gamma(4, 1, 100)
    finish(tmp_path / "good", errors)
    finish(tmp_path / "bad", errors + 1)
    for name, code in (("failed", 2), ("killed", -9), ("running", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / provenance.FILE).touch()
        attempt = {"code": code, "error": "=1+1", "seconds": 90, "attempts": 1}
        (tmp_path / name / sweeps.ATTEMPTS).write_text(json.dumps(attempt))

    with FileLock(tmp_path / "running" / provenance.LOCK):
        results = report.read(tmp_path)
    states = ["finished", "finished", "running", "failed", "stopped", "waiting", "waiting"]
    assert list(results.jobs["state"]) == states
    assert list(results.settings["setting"]) == ["lr 0", "lr 1"]
    assert list(results.settings["verdict"]) == ["best", "the best is better"]
    # Only the best setting shows a test metric.
    assert results.settings["test_nme"][0] == 9 and np.isnan(results.settings["test_nme"][1])

    report.write(results, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<b>" not in page and "&lt;b&gt;" in page and "the best is better" in page
    assert "./=1+1" in (tmp_path / "report.csv").read_text()
    assert "1.00 (1.00 – 1.00)" in (tmp_path / "report.txt").read_text()
    with pytest.raises(FkpError, match="5 of 7 jobs"):
        report.close(tmp_path)


def test_curves_are_an_image_of_the_page(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    jobs = pd.DataFrame({"folder": ["a", "b", "c"], "seed": ["0", "1", "0"], "lr": ["1", "1", "2"]})
    curves = {"a": [(4, 9.0), (8, 5.0)], "b": [(4, float("nan")), (8, 4.0)], "c": []}
    results = sweep_results.SweepResults(jobs, pd.DataFrame(), curves)
    assert report._curves_image(results).startswith('<img alt="validation curves"')
    results.curves = {name: [] for name in curves}
    assert report._curves_image(results) == ""


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"swept": 3, "jobs": 4}'])
def test_a_folder_without_a_sweep_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / sweeps.JOBS).write_text(text)
    with pytest.raises(FkpError, match="not the folder of a sweep"):
        report.read(tmp_path)
