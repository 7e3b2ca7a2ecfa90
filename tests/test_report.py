"""What a sweep's report says of its jobs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from fkp.errors import FkpError
from fkp.runs import provenance, report, sweeps


def faces(nme: np.ndarray, people: int = 20) -> pd.DataFrame:
    index = pd.Index([f"{i}.png" for i in range(len(nme))], name="face")
    return pd.DataFrame(
        {"identity": [str(i % people) for i in range(len(nme))], "nme": nme}, index=index
    )


def finish(folder: Path, nme: np.ndarray) -> None:
    folder.mkdir(parents=True)
    faces(nme).to_csv(folder / report.FACES)
    figures = {sweeps.VALUE: float(nme.mean()), "test/nme": 9.0}
    (folder / sweeps.FIGURES).write_text(json.dumps(figures))


def test_a_setting_is_no_better_than_itself_and_better_than_a_worse_one() -> None:
    rng = np.random.default_rng(0)
    errors = rng.gamma(4, 1, 200)
    one, same = (
        {"0": faces(errors)},
        {"0": faces(errors).sample(frac=1, random_state=0)},
    )  # in whatever order
    assert report.paired(one, same) == (0, 0)
    low, high = report.paired({"0": faces(errors + 0.5)}, one)
    assert low == pytest.approx(0.5) and high == pytest.approx(0.5)
    low, high = report.paired({"0": faces(errors + rng.normal(0, 1, 200))}, one)
    assert low < 0 < high and report.verdict(low, high) == "no difference seen"
    assert np.isnan(report.paired({"0": faces(errors[:-1])}, one)).all()


def test_seeds_widen_the_interval() -> None:
    errors = np.random.default_rng(0).gamma(4, 1, 100)
    best = {str(seed): faces(errors) for seed in range(4)}
    others = {str(seed): faces(errors + shift) for seed, shift in enumerate((-0.3, 0.3, -0.3, 0.4))}
    low, high = report.paired(others, best)
    assert low < 0 < high and high - low > 0.3
    unpaired = {f"other {seed}": table for seed, table in others.items()}
    assert np.allclose(
        report.paired(unpaired, best), 0.025
    )  # the mean over seeds, of the same shift everywhere


def test_every_job_is_a_row_whatever_became_of_it(tmp_path: Path) -> None:
    names, rng = (
        ("good", "bad", "running", "failed", "killed", "waiting", "<b>"),
        np.random.default_rng(0),
    )
    told = {name: [f"lr={i}", "seed=0"] for i, name in enumerate(names)}
    (tmp_path / sweeps.EXPECTED).write_text(json.dumps({"swept": ["lr", "seed"], "jobs": told}))
    errors = rng.gamma(4, 1, 100)
    finish(tmp_path / "good", errors)
    finish(tmp_path / "bad", errors + 1)
    for name, code in (("failed", 2), ("killed", -9), ("running", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / provenance.FILE).touch()
        record = {"code": code, "error": "=1+1", "seconds": 90, "attempts": 1}
        (tmp_path / name / sweeps.RECORD).write_text(json.dumps(record))
    with FileLock(tmp_path / "running" / provenance.LOCK):
        made = report.read(tmp_path)
    states = ["finished", "finished", "running", "failed", "stopped", "waiting", "waiting"]
    assert list(made.jobs["state"]) == states
    assert list(made.settings["setting"]) == ["lr 0", "lr 1"]
    assert list(made.settings["verdict"]) == ["best", "the best is better"]
    assert made.settings["test_nme"][0] == 9 and np.isnan(
        made.settings["test_nme"][1]
    )  # nobody is to choose by it
    report.write(made, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<b>" not in page and "&lt;b&gt;" in page and "the best is better" in page
    assert (
        "./=1+1" in (tmp_path / "report.csv").read_text()
        and "1.00 (1.00 – 1.00)" in (tmp_path / "report.txt").read_text()
    )
    with pytest.raises(FkpError, match="5 of 7 jobs are not finished"):
        report.close(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"swept": 3, "jobs": 4}'])
def test_what_is_no_sweep_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / sweeps.EXPECTED).write_text(text)
    with pytest.raises(FkpError, match="not the folder of a sweep"):
        report.read(tmp_path)
