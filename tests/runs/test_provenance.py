"""Which run is meant by resume and repeat, and what it must have in common with now."""

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


def begun(folder: Path, **changes: Any) -> provenance.Run:
    run = provenance.begin(
        folder, {**CONFIG, **changes}, ["seed=0", "trainer.max_epochs=3", "resume=false"]
    )
    run.made_of("data")
    assert run.lock
    run.lock.release()
    return run


def test_a_run_keeps_what_it_was_made_of(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", out=f"{tmp_path / 'run'}/x", seed=0)
    record = yaml.safe_load((run.folder / provenance.FILE).read_text())
    assert record["config"] == {
        "seed": 0,
        "trainer": {"max_epochs": 3},
        "ckpt_path": None,
        "out": "${run_dir}/x",
    }
    assert record["command"] == ["seed=0", "trainer.max_epochs=3"] and record["data"] == "data"
    assert {"python", "torch", "pytorch-lightning", "numpy"} <= record["versions"].keys()
    assert not run.resumed and run.checkpoint is None


def test_the_last_run_goes_on_with_what_it_was_told_and_others_are_left_alone(
    tmp_path: Path,
) -> None:
    begun(tmp_path / "2020/first")
    last = begun(tmp_path / "2021/last").folder.resolve()
    told = ["trainer.max_epochs=3", f"run_dir={last}", f"hydra.run.dir={last}"]
    assert provenance.arguments(["resume=true", "seed=1"], tmp_path) == [
        *told,
        "resume=true",
        "seed=1",
    ]
    assert provenance.arguments([f"repeat={last}"], tmp_path) == [
        "seed=0",
        "trainer.max_epochs=3",
        f"repeat={last}",
    ]
    for as_it_is in (["seed=1"], ["resume=false"], ["--help"]):
        assert provenance.arguments(as_it_is, tmp_path) == as_it_is
    for lost in (["resume=nowhere"], [f"repeat={tmp_path}"]):
        with pytest.raises(FkpError, match="not the folder of a run"):
            provenance.arguments(lost, tmp_path)
    with pytest.raises(FkpError, match="no run in"):
        provenance.arguments(["resume=true"], tmp_path / "empty")


def test_a_run_goes_on_from_its_own_checkpoint_only_as_what_it_was(tmp_path: Path) -> None:
    first = begun(tmp_path)
    with pytest.raises(FkpError, match="holds a run"):
        begun(tmp_path)
    assert begun(tmp_path, resume=True).checkpoint is None  # killed before its first
    first.last.parent.mkdir()
    first.last.touch()
    again = begun(tmp_path, resume=True)
    assert again.resumed and again.checkpoint == first.last
    with pytest.raises(
        FkpError, match=r"trainer\.max_epochs: 3 then, 4 now(?s:.*)allow_changes=true"
    ):
        begun(tmp_path, resume=True, trainer={"max_epochs": 4})
    with pytest.raises(FkpError, match="the data"):
        provenance.begin(tmp_path, {**CONFIG, "resume": True}, []).made_of("other data")
    assert begun(tmp_path, resume=True, trainer={"max_epochs": 4}, allow_changes=True).resumed
    (tmp_path / "metrics.json").touch()
    with pytest.raises(FkpError, match="is finished"):
        begun(tmp_path, resume=True)


def test_two_processes_do_not_train_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "PATIENCE", 0.1)
    begun(tmp_path)
    held = provenance.begin(tmp_path, {**CONFIG, "resume": True}, [])
    with pytest.raises(FkpError, match="another process"):
        provenance.begin(tmp_path, {**CONFIG, "resume": True}, [])
    assert held.lock


@pytest.mark.parametrize("text", ["", "[", "a: 1", "command: x\nconfig: {}", "\x00"])
def test_a_broken_record_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / provenance.FILE).write_text(text)
    with pytest.raises(FkpError, match="cannot be read"):
        provenance.arguments([f"resume={tmp_path}"])
