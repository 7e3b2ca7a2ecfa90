"""A sweep on a real SLURM of two nodes: what becomes of jobs that are cancelled, killed and preempted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from cluster import slurm
from conftest import ROOT, TINY

pytestmark = pytest.mark.slurm

SLOW = "+callbacks.slow={_target_: slow.Slow, seconds: 1, file: '${run_dir}/steps.txt'}"
Command = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", exc_type=ImportError)
    with slurm() as environment:
        # The nodes' names are not in any directory of hosts; those of a real cluster are.
        paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
        yield environment | {"PYTHONPATH": paths, "MASTER_ADDR": "127.0.0.1", "COLUMNS": "160"}


@pytest.fixture
def sweep(
    cluster: dict[str, str], faces_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Command:
    """Begins a sweep of slow little trainings on the cluster."""

    def begin(*overrides: str) -> subprocess.Popen[str]:
        fixed = [*TINY, f"data.root={faces_folder}", "hydra/launcher=slurm"]
        command = [sys.executable, str(ROOT / "train.py"), "-m", *fixed, *overrides]
        driver = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=cluster,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        request.addfinalizer(driver.kill)
        return driver

    return begin


def ask(cluster: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=cluster, capture_output=True, text=True, check=True).stdout


def states(cluster: dict[str, str], job: str) -> dict[str, str]:
    """The index of each job in an array, and its state by the cluster's accounts."""
    lines = ask(cluster, "sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", job).splitlines()
    return {
        one.partition("|")[0].partition("_")[2]: one.partition("|")[2].split()[0] for one in lines
    }


def newest(cluster: dict[str, str]) -> str:
    """The number of the last array that was submitted."""
    return max(
        (
            one.split("_")[0]
            for one in ask(cluster, "sacct", "-X", "-n", "-P", "-o", "JobID").split()
        ),
        key=int,
    )


def process(cluster: dict[str, str], index: int) -> int:
    """The process that the cluster runs for one of an array's jobs."""
    told = {f"SLURM_CONF={cluster['SLURM_CONF']}".encode(), f"SLURM_ARRAY_TASK_ID={index}".encode()}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = told | {b"SLURM_PROCID=0"} <= set((folder / "environ").read_bytes().split(b"\0"))
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            ours
            and b"submitit.core._submit" in command
            and Path(command[0].decode()).name.startswith("python")
        ):
            return int(folder.name)
    raise AssertionError(f"no process of job {index}")


def test_a_sweep_survives_whatever_becomes_of_its_jobs(
    cluster: dict[str, str], sweep: Command, tmp_path: Path
) -> None:
    """Of five jobs, in their second epoch, one is cancelled, one killed, one asked to make room, and one put back into
    the queue; then the same command again."""
    overrides = ["datamodule.batch_size=4", SLOW, "seed=0,1,2,3,4"]
    driver = sweep(*overrides)

    def steps(seed: int) -> list[tuple[int, int]]:
        """Epoch and number of each that a job has begun."""
        file = next(tmp_path.glob(f"outputs/sweeps/*/seed-{seed}_*/steps.txt"), None)
        lines = file.read_text().splitlines() if file else []
        return [(int(epoch), int(step)) for epoch, step, _ in map(str.split, lines)]

    def deep(seed: int) -> None:
        """Wait until a job has begun the second step of its second epoch."""
        end = time.monotonic() + 180
        while sum(epoch for epoch, _ in steps(seed)) < 2:
            assert driver.poll() is None and time.monotonic() < end, driver.communicate(timeout=1)[
                0
            ]
            time.sleep(0.1)

    deep(0)
    job = newest(cluster)
    ask(cluster, "scancel", f"{job}_0")
    deep(1)
    os.kill(process(cluster, 1), signal.SIGKILL)
    deep(2)
    ask(cluster, "scancel", "--signal=TERM", f"{job}_2")
    deep(3)
    ask(cluster, "scontrol", "requeue", f"{job}_3")
    time.sleep(3)  # by now the one before has saved
    ask(cluster, "scancel", "--signal=USR2", f"{job}_2")
    printed, _ = driver.communicate(timeout=300)
    print(
        printed,
        ask(
            cluster, "sacct", "-D", "-X", "-o", "JobID,State,ExitCode,Start,End,NodeList", "-j", job
        ),
    )
    ended = {"0": "CANCELLED", "1": "FAILED", "2": "COMPLETED", "3": "COMPLETED", "4": "COMPLETED"}
    assert states(cluster, job) == ended
    assert driver.returncode == 2, "two jobs have failed, and the report says so"
    (folder,) = tmp_path.glob("outputs/sweeps/*")
    runs = [next(folder.glob(f"seed-{seed}_*")) for seed in range(5)]
    assert [(run / "metrics.json").exists() for run in runs] == [False, False, True, True, True]
    whole = steps(4)
    assert steps(2) == whole, "who is asked keeps all that it has done"
    assert set(steps(3)) == set(whole) and steps(3).count((0, 0)) == 1, (
        "who is taken off may lose steps of an epoch"
    )

    before = [(run / "metrics.json").stat().st_mtime for run in runs[2:]]
    again = sweep(*overrides)
    printed, _ = again.communicate(timeout=300)
    print(printed)
    assert again.returncode == 0, printed
    assert states(cluster, newest(cluster)) == {"0": "COMPLETED", "1": "COMPLETED"}
    assert [(run / "metrics.json").stat().st_mtime for run in runs[2:]] == before
    for seed in range(2):
        assert set(steps(seed)) == set(whole) and steps(seed).count((0, 0)) == 1, (
            "they have gone on"
        )
    records = [yaml.safe_load((run / "run.yaml").read_text()) for run in runs]
    assert [len(record.get("resumed", [])) for record in records] == [1, 1, 1, 1, 0]


def test_two_nodes_train_one_model(cluster: dict[str, str], sweep: Command, tmp_path: Path) -> None:
    """SLURM starts a process on each."""
    two = [
        "hydra.launcher.nodes=2",
        "+trainer.num_nodes=2",
        "trainer.devices=1",
        "+trainer.strategy=ddp",
    ]
    driver = sweep(*two, SLOW)
    printed, _ = driver.communicate(timeout=300)
    print(
        printed, ask(cluster, "sacct", "-o", "JobID,State,NTasks,NodeList", "-j", newest(cluster))
    )
    assert driver.returncode == 0, printed
    (figures,) = tmp_path.glob("outputs/sweeps/*/*/metrics.json")
    assert {
        line.split()[2] for line in (figures.parent / "steps.txt").read_text().splitlines()
    } == {"2"}


def test_processes_that_slurm_does_not_start_are_refused(sweep: Command, tmp_path: Path) -> None:
    """Else Lightning would start them by the command line of submitit."""
    driver = sweep("trainer.devices=2", "trainer.accelerator=cpu")
    printed, _ = driver.communicate(timeout=300)
    assert driver.returncode == 2
    assert "--ntasks-per-node=1` does not match" in printed
