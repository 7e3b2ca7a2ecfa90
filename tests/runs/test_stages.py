"""Test training in stages: the command line, the overrides of each stage, and a real training."""

from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, TINY, call, weights
from hydra import compose, initialize_config_dir

from fkp.errors import FkpError
from fkp.runs import config, stages, sweeps

LIST = [
    {"start": {"from": "shipped", "mode": "finetune"}, "model": {"optimizer": {"lr": 0.1}}},
    {"data": {"sources": ["a", "b"], "weights": [1, 0.5]}, "trainer": {"max_epochs": 3}},
]


def test_an_experiment_with_stages_is_a_sweep_with_the_folder_of_the_run() -> None:
    option, *rest = stages.arguments(["seed=1", "experiment=distilled", "run_dir=out"])
    assert option == "-m" and "run_dir=out" not in rest
    assert {"hydra/sweeper=stages", "hydra.sweep.dir=out"} <= set(rest)
    assert {"seed=1", "experiment=distilled"} <= set(rest)

    # Without a folder: one that the overrides name.
    (named,) = [one for one in stages.arguments(["experiment=distilled"]) if "sweep.dir" in one]
    assert named in stages.arguments(["experiment=distilled"])
    assert named not in stages.arguments(["experiment=distilled", "seed=1"])
    assert "-m" in stages.arguments(["stages=[{seed: 1}]"])


def test_experiments_of_ones_own_may_have_stages(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment/mine.yaml"
    given = [f"--config-dir={tmp_path}", "experiment=mine"]
    for text, staged in (("seed: 1\n", False), ("seed: 1\nstages: [{seed: 2}]\n", True)):
        file.write_text(text)
        assert ("-m" in stages.arguments(given)) == staged


def test_other_command_lines_are_left_as_they_are() -> None:
    for same in (["seed=1"], ["experiment=heatmap"], ["experiment=distilled", "stages=null"]):
        assert stages.arguments(same) == same
    assert "data.fold=0,1" in stages.arguments(["data.folds=2"])
    for other in ("resume=true", "data.folds=3", "-m", "debug=augment"):
        with pytest.raises(FkpError) as refused:
            stages.arguments(["experiment=distilled", other])
        assert refused.value.key == other.partition("=")[0] and refused.value.hint


def test_a_stage_starts_from_the_one_before_and_the_command_line_wins() -> None:
    given = ["experiment=x", "trainer.max_epochs=1", "start.from=mine.ckpt", "stages.0.seed=4"]
    first, second = stages.jobs(given, LIST, Path("out")).values()
    assert first == [*given[:3], "stages=null", "start.mode=finetune", "model.optimizer.lr=0.1"]
    assert second[:2] == given[:2] and "stages=null" in second
    assert "start.from=out/stage_1/checkpoints/best.ckpt" in second
    assert "data.sources=[a,b]" in second and "data.weights=[1,0.5]" in second
    assert not [one for one in second if one.startswith(("start.from=mine", "stages.0"))]
    assert not [one for one in second if one == "trainer.max_epochs=3"]

    for wrong in ([], {"a": 1}, ["a=1"], "x"):
        with pytest.raises(FkpError) as refused:
            stages.jobs(given, wrong, Path("out"))
        assert refused.value.key == "stages"


def test_the_stages_of_every_experiment_compose_and_build() -> None:
    for file in (ROOT / "conf/experiment").glob("*.yaml"):
        listed = yaml.safe_load(file.read_text()).get("stages") or []
        given = [f"experiment={file.stem}", "data.root=somewhere"]
        for job in stages.jobs(given, listed, Path("out")).values() if listed else []:
            with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
                cfg = compose("train", [*job, "run_dir=out"])
            config.check(cfg)
            assert config.build(cfg.data) is not None and cfg.stages is None


def test_a_folder_of_stages_is_resumed_with_its_own_command(tmp_path: Path) -> None:
    given = ["experiment=distilled", "seed=1"]
    stages.begin(tmp_path, given, {"stage_1": given})
    command = stages.arguments([f"resume={tmp_path}"])
    assert command == stages.arguments([*given, f"run_dir={tmp_path}"])
    changed = stages.arguments([f"resume={tmp_path}", "seed=2"])
    assert "seed=2" in changed and "seed=1" not in changed

    # A damaged record, or a folder without one, is that of a run, or of none.
    for text in ("[", "1", None):
        (tmp_path / stages.COMMAND).write_text(text) if text else (
            tmp_path / stages.COMMAND
        ).unlink()
        with pytest.raises(FkpError):
            stages.arguments([f"resume={tmp_path}"])


@pytest.mark.slow
def test_stages_are_trained_one_after_the_other(faces_folder: Path, tmp_path: Path) -> None:
    command = ["train.py", *TINY, f"data.root={faces_folder}", "run_dir=out"]
    command.append("trainer.max_epochs=1")
    first, second = tmp_path / "out/stage_1", tmp_path / "out/stage_2"

    # A mistake in the last stage is reported before the first is trained.
    wrong = call(*command, "stages=[{seed: 3},{seed: x}]", cwd=tmp_path)
    assert wrong.returncode == 2 and "stage_2" in wrong.stderr and not first.exists()

    # The second begins with the best weights of the first; the folder has its own best ones.
    done = call(*command, "stages=[{seed: 3},{seed: 4, datamodule: {margin: 2.0}}]", cwd=tmp_path)
    assert done.returncode == 0 and "total" in done.stdout, done.stderr
    record = yaml.safe_load((second / "run.yaml").read_text())
    assert record["start"] == {"from": "out/stage_1/checkpoints/best.ckpt", "mode": "finetune"}
    assert record["config"]["datamodule"]["margin"] == 2
    best = weights(tmp_path / "out", "best")
    assert all(torch.equal(best[key], value) for key, value in weights(second, "best").items())

    # A stage that was stopped continues; a finished one is left alone.
    (second / sweeps.METRICS).unlink()
    again = call("train.py", "resume=out", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert [sweeps.read_attempts(stage)["attempts"] for stage in (first, second)] == [1, 2]

    # Other stages do not belong into this folder.
    other = call(*command, "stages=[{seed: 3}]", cwd=tmp_path)
    assert other.returncode == 2 and "run_dir" in other.stderr
