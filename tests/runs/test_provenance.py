"""Test which run `resume` and `repeat` mean, and what a resumed run must have in common with it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fkp.errors import FkpError
from fkp.runs import provenance

CONFIG = {
    "seed": 0,
    "trainer": {"max_epochs": 3},
    "resume": False,
    "repeat": None,
    "allow_changes": False,
    "ckpt_path": None,
}
COMMAND = ["seed=0", "trainer.max_epochs=3"]


def begin(folder: Path, **changes: Any) -> provenance.Run:
    """Begin a run, write its record, and release its folder."""
    run = provenance.begin(folder, {**CONFIG, **changes}, [*COMMAND, "resume=false"])
    run.made_of("data")
    assert run.lock
    run.lock.release()
    return run


def test_a_run_records_what_it_is_made_of(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", out=f"{tmp_path / 'run'}/x", seed=0)
    record = yaml.safe_load((run.folder / provenance.FILE).read_text())
    assert record["config"] == {
        "seed": 0,
        "trainer": {"max_epochs": 3},
        "ckpt_path": None,
        "out": "${run_dir}/x",
    }
    assert record["command"] == COMMAND and record["data"] == "data"
    assert {"python", "torch", "pytorch-lightning", "numpy"} <= record["versions"].keys()
    assert not run.resumed and run.checkpoint is None


def test_resume_and_repeat_complete_the_command_of_the_run(tmp_path: Path) -> None:
    begin(tmp_path / "2020/first")
    last = begin(tmp_path / "2021/last").folder.resolve()
    places = [f"run_dir={last}", f"hydra.run.dir={last}"]
    resumed = provenance.arguments(["resume=true", "seed=1"], tmp_path)
    assert resumed == ["trainer.max_epochs=3", *places, "resume=true", "seed=1"]
    repeated = provenance.arguments([f"repeat={last}"], tmp_path)
    assert repeated == [*COMMAND, f"repeat={last}"]

    for unchanged in (["seed=1"], ["resume=false"], ["--help"]):
        assert provenance.arguments(unchanged, tmp_path) == unchanged
    for lost in (["resume=nowhere"], [f"repeat={tmp_path}"]):
        with pytest.raises(FkpError, match=provenance.FILE):
            provenance.arguments(lost, tmp_path)
    with pytest.raises(FkpError, match="resume=true"):
        provenance.arguments(["resume=true"], tmp_path / "empty")


def test_a_resumed_run_starts_from_its_own_checkpoint(tmp_path: Path) -> None:
    first = begin(tmp_path)
    with pytest.raises(FkpError, match="resume="):
        begin(tmp_path)
    assert begin(tmp_path, resume=True).checkpoint is None  # killed before its first checkpoint

    first.last.parent.mkdir()
    first.last.touch()
    again = begin(tmp_path, resume=True)
    assert again.resumed and again.checkpoint == first.last


def test_a_resumed_run_must_be_made_of_the_same(tmp_path: Path) -> None:
    begin(tmp_path)
    changed = {"resume": True, "trainer": {"max_epochs": 4}}
    with pytest.raises(FkpError, match=r"trainer\.max_epochs: 3(?s:.*)4(?s:.*)allow_changes=true"):
        begin(tmp_path, **changed)
    with pytest.raises(FkpError, match="data: "):
        provenance.begin(tmp_path, {**CONFIG, "resume": True}, []).made_of("other data")
    assert begin(tmp_path, **changed, allow_changes=True).resumed

    (tmp_path / "metrics.json").touch()
    with pytest.raises(FkpError, match="finished"):
        begin(tmp_path, resume=True)


def test_two_processes_do_not_train_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "PATIENCE", 0.1)
    begin(tmp_path)
    held = provenance.begin(tmp_path, {**CONFIG, "resume": True}, [])
    with pytest.raises(FkpError, match="another process"):
        provenance.begin(tmp_path, {**CONFIG, "resume": True}, [])
    assert held.lock


@pytest.mark.parametrize("text", ["", "[", "a: 1", "command: x\nconfig: {}", "\x00"])
def test_a_damaged_record_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / provenance.FILE).write_text(text)
    with pytest.raises(FkpError, match=provenance.FILE):
        provenance.arguments([f"resume={tmp_path}"])
