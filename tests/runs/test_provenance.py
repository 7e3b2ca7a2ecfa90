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
    "start": {"from": None, "mode": "resume"},
    "allow_changes": False,
}


def resumed(folder: Path) -> dict[str, Any]:
    """A configuration that resumes the run in a folder."""
    return {**CONFIG, "start": {"from": str(folder), "mode": "resume"}}


def begun(folder: Path, resume: bool = False, **changes: Any) -> provenance.Run:
    run = provenance.begin(
        folder,
        {**(resumed(folder) if resume else CONFIG), **changes},
        ["seed=0", "trainer.max_epochs=3", "start.mode=resume"],
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
        "out": "${run_dir}/x",
    }
    assert record["start"] == CONFIG["start"]
    assert record["command"] == ["seed=0", "trainer.max_epochs=3"] and record["data"] == "data"
    assert {"python", "torch", "pytorch-lightning", "numpy"} <= record["versions"].keys()
    assert not run.resumed and run.checkpoint is None


def test_the_last_run_goes_on_with_what_it_was_told_and_others_are_left_alone(
    tmp_path: Path,
) -> None:
    begun(tmp_path / "2020/first")
    last = begun(tmp_path / "2021/last").folder.resolve()
    told = ["trainer.max_epochs=3", f"start.from={last}", f"run_dir={last}"]
    told += [f"hydra.run.dir={last}", "start.mode=resume"]
    assert provenance.arguments(["resume=true", "seed=1"], tmp_path) == [
        *told,
        "seed=1",
    ]
    for same in ([f"resume={last}"], ["start.from=last"], [f"start.from={last}", f"resume={last}"]):
        assert provenance.arguments([*same, "seed=1"], tmp_path) == [*told, "seed=1"]
    for folder in (str(last), "last"):
        repeat = [f"start.from={folder}", "start.mode=repeat"]
        assert provenance.arguments(repeat, tmp_path) == [
            "seed=0",
            "trainer.max_epochs=3",
            f"start.from={last}",
            "start.mode=repeat",
        ]
    for as_it_is in (
        ["seed=1"],
        ["--help"],
        ["start.from=shipped", "start.mode=finetune"],
        ["start.from=a.ckpt"],
        ["start.from=null"],
    ):
        assert provenance.arguments([*as_it_is, "resume=false"], tmp_path) == as_it_is
    for wrong in (
        ["resume=true", "start.from=other"],
        ["start.mode=again"],
        ["start.from=shipped"],
    ):
        with pytest.raises(FkpError, match=r"start\."):
            provenance.arguments(wrong, tmp_path)
    for lost in (["resume=nowhere"], [f"start.from={tmp_path}", "start.mode=repeat"]):
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
    with pytest.raises(FkpError, match="data"):
        provenance.begin(tmp_path, resumed(tmp_path), []).made_of("other data")
    assert begun(tmp_path, resume=True, trainer={"max_epochs": 4}, allow_changes=True).resumed
    (tmp_path / "metrics.json").touch()
    with pytest.raises(FkpError, match="is finished"):
        begun(tmp_path, resume=True)


def test_a_resumed_run_keeps_what_it_started_from(tmp_path: Path) -> None:
    finetune = {"from": "shipped", "mode": "finetune"}
    begun(tmp_path / "run", start=finetune)
    again = begun(tmp_path / "run", resume=True)
    assert again.record["start"] == finetune and again.resumed and again.checkpoint is None
    repeat = {"from": str(tmp_path / "run"), "mode": "repeat"}
    repeated = begun(tmp_path / "repeated", start=repeat)
    assert repeated.record["start"] == finetune and not repeated.resumed
    (tmp_path / "first.ckpt").touch()
    begun(tmp_path / "from", start={"from": str(tmp_path / "first.ckpt"), "mode": "resume"})
    assert begun(tmp_path / "from", resume=True).checkpoint == tmp_path / "first.ckpt"


def test_a_run_is_resumed_in_its_own_folder(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    with pytest.raises(FkpError, match="run_dir"):
        provenance.begin(tmp_path / "other", resumed(tmp_path / "run"), [])
    lost = {**CONFIG, "start": {"from": "/nowhere.ckpt", "mode": "resume"}}
    with pytest.raises(FkpError, match=r"start\.from=/nowhere\.ckpt"):
        provenance.begin(tmp_path / "other", lost, [])
    assert not (tmp_path / "other").exists()


def test_two_processes_do_not_train_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "PATIENCE", 0.1)
    begun(tmp_path)
    held = provenance.begin(tmp_path, resumed(tmp_path), [])
    with pytest.raises(FkpError, match="another process"):
        provenance.begin(tmp_path, resumed(tmp_path), [])
    assert held.lock


@pytest.mark.parametrize("text", ["", "[", "a: 1", "command: x\nconfig: {}", "\x00"])
def test_a_broken_record_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / provenance.FILE).write_text(text)
    with pytest.raises(FkpError, match="cannot be read"):
        provenance.arguments([f"resume={tmp_path}"])
