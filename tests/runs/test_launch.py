"""Test distributed training: results as of one process, files written once, one common end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, call, weights
from hydra import compose, initialize_config_dir
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fkp.data.datamodule import FacesDataModule
from fkp.data.labelled_csv import write_csv
from fkp.data.sampling import WeightedEpochs
from fkp.data.youtube_faces import YoutubeFaces
from fkp.errors import FkpError
from fkp.runs import config, provenance
from fkp.transforms import FaceCrop, RandomCrop, Rescale

TWO = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "callbacks.progress=null")
NO_DROPOUT = "model.network.dropout=[0,0]"
slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def _callbacks_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


def metrics(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.json").read_text())


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(next((run / "tensorboard").iterdir())))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def kill(at: dict[int, int], process: int, notes: Path) -> str:
    """Return the override that adds `killer.Kill` to a run."""
    steps = ", ".join(f"{step}: {int(number)}" for step, number in at.items())
    options = f"at: {{{steps}}}, folder: {notes}, process: {process}"
    return f"+callbacks.kill{process}={{_target_: killer.Kill, {options}}}"


def hints(text: str, run: Path) -> int:
    """Count the hints to resume a run."""
    return text.count(f"from {run}/checkpoints/last.ckpt")


def all_ended(run: Path) -> bool:
    """Return whether within two seconds no process is left whose command line names the run."""
    for _ in range(20):
        lines = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.append(process.read_bytes())
            except OSError:
                continue
        if not any(b"train.py" in line and str(run).encode() in line for line in lines):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("batch", [3, 4, 8])
@pytest.mark.parametrize("count", [5, 8, 9, 13, 16])
def test_batches_of_all_processes_together_are_those_of_one(
    count: int, batch: int, processes: int
) -> None:
    """Except a last batch with fewer faces than processes; also from within an epoch."""
    for skipped in (0, 1):
        whole = WeightedEpochs(np.ones(count), 3, batch)
        shares = [
            WeightedEpochs(np.ones(count), 3, batch, process, processes)
            for process in range(processes)
        ]
        served = []
        for number, share in enumerate([whole, *shares]):
            size = batch if number == 0 else len(range(number - 1, batch, processes))
            share.set_epoch(2)
            assert len(share) == len(list(share))
            share.skipped = skipped * size
            keys = list(share)
            served.append([keys[i : i + size] for i in range(0, len(keys), size)])
        steps = [some for some in served[0] if len(some) >= processes]
        assert all(len(of_one) == len(steps) for of_one in served[1:])
        for step, batch_of_one in enumerate(steps):
            keys = [key for of_one in served[1:] for key in of_one[step]]
            assert len(set(keys)) == len(keys) and set(keys) == set(batch_of_one)


class _Ranks:
    """What a data module reads of a Trainer."""

    def __init__(self, rank: int, size: int):
        self.global_rank, self.world_size = rank, size


def datamodule(faces_folder: Path, rank: int, size: int, batch: int) -> FacesDataModule:
    crop = {"frame": FaceCrop(1.4), "rescale": Rescale(40), "crop": RandomCrop(36)}
    made = FacesDataModule(YoutubeFaces(str(faces_folder)), crop, batch_size=batch)
    made.trainer = _Ranks(rank, size)  # type: ignore[assignment]
    made.setup()
    return made


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_face_is_served_to_one_process(faces_folder: Path, split: str, size: int) -> None:
    served = []
    for rank in range(size):
        data = datamodule(faces_folder, rank, size, 5)
        served += [
            points
            for batch in getattr(data, f"{split}_dataloader")()
            for points in batch["points"].numpy()
        ]
    wanted = data.splits[split].table.points
    left_out = len(wanted) % 5 if split == "train" and len(wanted) % 5 < size else 0
    assert len(served) == len(wanted) - left_out > size
    assert len(np.unique(np.round(served, 3), axis=0)) == len(served)


def test_fewer_faces_than_processes_are_refused(faces_folder: Path) -> None:
    with pytest.raises(FkpError, match=r"datamodule\.batch_size .* 3 processes.* 2"):
        datamodule(faces_folder, 0, 3, 2).train_dataloader()
    with pytest.raises(FkpError, match=r"val .* 30 processes"):
        datamodule(faces_folder, 0, 30, 40).val_dataloader()


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "GROUP_RANK": "1"}, False),
        ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, True),
        ({"SLURM_PROCID": "2", "SLURM_LOCALID": "0"}, False),
        (
            {"SLURM_PROCID": "0", "LOCAL_RANK": "1"},
            False,
        ),  # a worker of fkp.runs.launch, in an interactive job
        (
            {"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "SLURM_PROCID": "1"},
            True,
        ),  # torchrun on nodes of SLURM
        ({"RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1", "SLURM_PROCID": "0"}, False),
    ],
)
def test_one_process_has_rank_zero_whatever_started_them(
    environment: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert provenance.is_rank_zero() == first


def test_a_process_of_another_rank_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    completed = provenance.arguments(["seed=1", "run_dir=there"], tmp_path)
    assert completed == ["seed=1", "run_dir=there", "hydra.run.dir=there", *provenance.QUIET]
    assert f"hydra.run.dir={tmp_path}" in provenance.arguments(["seed=1"], tmp_path)
    values: dict[str, Any] = {"start": {"from": None, "mode": "resume"}, "allow_changes": False}
    run = provenance.begin(tmp_path / "run", values, ["seed=1"])
    run.made_of("data")
    assert not list(tmp_path.iterdir()) and not run.resumed
    with pytest.raises(FkpError, match="not the folder of a run"):
        start = {"from": str(tmp_path / "run"), "mode": "resume"}
        provenance.begin(tmp_path / "run", {**values, "start": start}, [])


@slow
def test_two_processes_train_as_one_does_and_write_once(faces_folder: Path, tmp_path: Path) -> None:
    """With odd batch sizes, a last batch that is not full, and points without a label."""
    table = YoutubeFaces(str(faces_folder)).read().select(np.arange(32))
    points = np.where(np.random.default_rng(0).random((32, 68, 1)) < 0.3, np.nan, table.points)
    points[:, [36, 45]] = table.points[:, [36, 45]]
    shutil.copytree(faces_folder / "training", tmp_path / "own" / "images")
    write_csv(tmp_path / "own" / "keypoints.csv", [path.name for path in table.paths], points)
    options = [
        "data=csv",
        *TINY[1:],
        f"data.root={tmp_path}/own",
        NO_DROPOUT,
        "datamodule.batch_size=7",
    ]
    for folder, more in (("one", ["callbacks.progress=null"]), ("two", TWO)):
        (tmp_path / folder).mkdir()
        done = call("train.py", *options, *more, cwd=tmp_path / folder)
        assert done.returncode == 0, done.stderr
        if folder == "one":
            lines = len(done.stdout.splitlines())
    assert len(done.stdout.splitlines()) == lines and done.stdout.count("predict.py image=") == 1
    said = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(set(said)) == len(said), done.stderr
    one, two = (next((tmp_path / folder).glob("outputs/*/*")) for folder in ("one", "two"))
    assert len(list(tmp_path.glob("two/outputs/*/*"))) == 1
    names = [
        sorted(str(path.relative_to(run)) for path in run.rglob("*") if "events" not in path.name)
        for run in (one, two)
    ]
    assert names[0] == names[1]
    for key, value in weights(one).items():
        torch.testing.assert_close(weights(two)[key], value, atol=1e-5, rtol=0)
    assert metrics(two) == pytest.approx(metrics(one), rel=1e-5)
    for tag, points in curves(one).items():
        steps, values = zip(*curves(two)[tag], strict=True)
        assert steps == tuple(step for step, _ in points)
        assert values == pytest.approx([value for _, value in points], rel=1e-5), tag


@slow
def test_batch_norm_with_unequal_numbers_of_batches(faces_folder: Path, tmp_path: Path) -> None:
    """One process has a batch more; the metrics are those of the saved weights."""
    options = [
        *TINY,
        "experiment=heatmap",
        "model.network.width=4",
        "datamodule.batch_size=2",
        *TWO,
    ]
    done = call(
        "train.py", *options, f"data.root={faces_folder}", f"run_dir={tmp_path}/run", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    data = [
        "data=youtube_faces",
        f"data.root={faces_folder}",
        f"ckpt={tmp_path}/run/checkpoints/best.ckpt",
    ]
    found = json.loads(call("evaluate.py", *data, cwd=tmp_path).stdout.splitlines()[-1])
    assert found["nme_as_trained"] == pytest.approx(metrics(tmp_path / "run")["test/nme"], rel=0.02)


@slow
def test_an_unfrozen_backbone_trains_alike_in_all_processes(
    faces_folder: Path, tmp_path: Path
) -> None:
    from torchvision.models import shufflenet_v2_x0_5

    torch.save(shufflenet_v2_x0_5().state_dict(), tmp_path / "first.pth")
    transfer = ["experiment=transfer", "model.network.backbone=shufflenet_v2_x0_5", *TINY, *TWO]
    transfer += [
        f"model.network.weights={tmp_path}/first.pth",
        "callbacks.release.unfreeze_backbone_at_epoch=1",
    ]
    begun = [*transfer, f"data.root={faces_folder}", "+callbacks.alike={_target_: killer.Alike}"]
    done = call("train.py", *begun, f"run_dir={tmp_path}/run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first = torch.load(tmp_path / "first.pth", weights_only=True)["conv5.0.weight"]
    assert not torch.equal(weights(tmp_path / "run")["network.backbone.5.0.weight"], first)
    more = [f"resume={tmp_path}/run", "trainer.max_epochs=3", "allow_changes=true"]
    done = call("train.py", *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@slow
def test_two_processes_stopped_and_killed_end_the_same(faces_folder: Path, tmp_path: Path) -> None:
    """Bit for bit, with dropout; if one is stopped or killed, both end with one message."""
    begun = [*TINY, *TWO, f"data.root={faces_folder}", "callbacks.last.minutes=0"]
    done = call("train.py", *begun, f"run_dir={tmp_path}/whole", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    killers = [
        kill({1: signal.SIGTERM, 6: signal.SIGKILL, -1: signal.SIGTERM}, 0, tmp_path),
        kill({3: signal.SIGTERM, 4: signal.SIGKILL}, 1, tmp_path),
    ]
    for number, (step, code) in enumerate([(2, 143), (4, 143), (4, 2), (6, -9), (8, 143)]):
        arguments = [*begun, f"run_dir={run}", *killers] if number == 0 else [f"resume={run}"]
        done = call("train.py", *arguments, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert all_ended(run), number
        assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == step
        if code != -9:
            assert "Traceback" not in done.stderr, done.stderr
            assert hints(done.stderr, run) == 1, done.stderr
        if code == 2:
            assert "worker process 1 was ended by SIGKILL" in done.stderr
    done = call("train.py", f"resume={run}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for key, value in weights(tmp_path / "whole").items():
        assert torch.equal(weights(run)[key], value), key
    assert curves(run) == curves(tmp_path / "whole")
    assert metrics(run) == metrics(tmp_path / "whole")


@slow
@pytest.mark.parametrize("message", [None, "the second process failed"])
def test_an_error_in_one_process_ends_both_with_one_message(
    faces_folder: Path, tmp_path: Path, message: str | None
) -> None:
    spoil = f"+callbacks.spoil={{_target_: killer.Spoil, message: {message or 'null'}}}"
    begun = [*TINY, *TWO, f"data.root={faces_folder}", spoil, f"run_dir={tmp_path}/run"]
    done = call("train.py", *begun, "callbacks.last.minutes=0", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    expected = "nan .*epoch 0, batch 2" if message is None else f"process 1 failed: {message}"
    (line,) = [line for line in done.stderr.splitlines() if "resume=true" in line]
    assert re.search(expected, line) and hints(done.stderr, tmp_path / "run") == 1
    assert all_ended(tmp_path / "run")
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


@slow
def test_torchrun_may_start_the_processes(faces_folder: Path, tmp_path: Path) -> None:
    options = [*TINY, *TWO, f"data.root={faces_folder}", "trainer.max_epochs=1"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(ROOT / "train.py"),
    ]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("predict.py image=") == 1
    (run,) = tmp_path.glob("outputs/*/*")
    assert [path.name for path in tmp_path.glob("*")] == ["outputs"]
    assert (run / "metrics.json").is_file()


@slow
def test_slurm_may_start_the_processes(faces_folder: Path, tmp_path: Path) -> None:
    """With the variables that srun sets, and no others."""
    job = {
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
    }
    job |= {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NAME": "fkp", "MASTER_ADDR": "127.0.0.1"}
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *TINY,
        *TWO,
        f"data.root={faces_folder}",
        "trainer.max_epochs=1",
    ]
    started = []
    for number in "01":
        environment = {**os.environ, **job, "SLURM_PROCID": number, "SLURM_LOCALID": number}
        output = (tmp_path / number).open("w")
        started.append(
            subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=output, stderr=output)
        )
    assert [process.wait(300) for process in started] == [0, 0], (tmp_path / "1").read_text()
    assert "predict.py image=" in (tmp_path / "0").read_text()
    assert "predict.py image=" not in (tmp_path / "1").read_text()
    (run,) = tmp_path.glob("outputs/*/*")
    assert (run / "metrics.json").is_file() and not list(tmp_path.glob("outputs/*.*"))


@slow
def test_ctrl_c_stops_both(faces_folder: Path, tmp_path: Path) -> None:
    """A terminal sends it to rank zero and to its workers."""
    run = tmp_path / "run"
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *TINY,
        *TWO,
        f"data.root={faces_folder}",
        f"run_dir={run}",
    ]
    process = subprocess.Popen(
        [*command, "trainer.max_epochs=1000"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(600):
        if (run / "checkpoints/last.ckpt").exists():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert hints(errors, run) == 1, errors
    assert all_ended(run)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_metrics_of_half_an_epoch_count_once_in_any_number_of_processes(processes: int) -> None:
    """Also those of a checkpoint from before distributed training."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", ["run_dir=nowhere"])
    parts = [{"errors": (2, {"faces": [torch.full((3,), 0.1 * number)]})} for number in (1, 2)]
    for states, count in ((parts, 6), (parts[0], 3)):
        taken = []
        for process in range(processes):
            made = config.build(cfg.model)
            made._trainer = _Ranks(process, processes)
            made.on_load_checkpoint({"gathered": states})
            assert made.errors["train_errors"].update_count == 2
            taken += [
                value for faces in made.errors["train_errors"].faces for value in faces.tolist()
            ]
        assert len(taken) == count and len(set(taken)) == count // 3
