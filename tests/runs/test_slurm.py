"""Test sweeps on a real SLURM of two nodes, whose jobs are cancelled, killed and preempted."""

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
        # No name server knows these nodes; one knows those of a real cluster.
        paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
        yield environment | {"PYTHONPATH": paths, "MASTER_ADDR": "127.0.0.1", "COLUMNS": "160"}


@pytest.fixture
def sweep(
    cluster: dict[str, str], faces_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Command:
    """Return a function that starts a sweep of small, slowed-down trainings on the cluster."""

    def start(*overrides: str) -> subprocess.Popen[str]:
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

    return start


def call_slurm(cluster: dict[str, str], *command: str) -> str:
    """Run one of SLURM's commands and return its output."""
    return subprocess.run(command, env=cluster, capture_output=True, text=True, check=True).stdout


def states(cluster: dict[str, str], job: str) -> dict[str, str]:
    """Return the state of each job of an array, by its index, from the cluster's accounting."""
    lines = call_slurm(
        cluster, "sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", job
    ).splitlines()
    return {
        one.partition("|")[0].partition("_")[2]: one.partition("|")[2].split()[0] for one in lines
    }


def newest(cluster: dict[str, str]) -> str:
    """Return the number of the last array that was submitted."""
    jobs = call_slurm(cluster, "sacct", "-X", "-n", "-P", "-o", "JobID").split()
    return max((job.split("_")[0] for job in jobs), key=int)


def process(cluster: dict[str, str], index: int) -> int:
    """Find the process that the cluster runs for a job of an array."""
    wanted = {
        f"SLURM_CONF={cluster['SLURM_CONF']}".encode(),
        f"SLURM_ARRAY_TASK_ID={index}".encode(),
    }
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = wanted | {b"SLURM_PROCID=0"} <= set(
                (folder / "environ").read_bytes().split(b"\0")
            )
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


def steps(tmp_path: Path, seed: int) -> list[tuple[int, int]]:
    """Return epoch and number of each step that a job has begun."""
    file = next(tmp_path.glob(f"outputs/sweeps/*/seed-{seed}_*/steps.txt"), None)
    lines = file.read_text().splitlines() if file else []
    return [(int(epoch), int(step)) for epoch, step, _ in map(str.split, lines)]


def wait_for(driver: subprocess.Popen[str], tmp_path: Path, seed: int) -> None:
    """Wait until a job has begun the second step of its second epoch."""
    end = time.monotonic() + 180
    while sum(epoch for epoch, _ in steps(tmp_path, seed)) < 2:
        running = driver.poll() is None and time.monotonic() < end
        assert running, driver.communicate(timeout=1)[0]
        time.sleep(0.1)


def interrupt(cluster: dict[str, str], driver: subprocess.Popen[str], tmp_path: Path) -> None:
    """Cancel job 0, kill job 1, preempt job 2 and requeue job 3, each in its second epoch."""
    wait_for(driver, tmp_path, 0)
    job = newest(cluster)
    call_slurm(cluster, "scancel", f"{job}_0")
    wait_for(driver, tmp_path, 1)
    os.kill(process(cluster, 1), signal.SIGKILL)
    wait_for(driver, tmp_path, 2)
    call_slurm(cluster, "scancel", "--signal=TERM", f"{job}_2")
    wait_for(driver, tmp_path, 3)
    call_slurm(cluster, "scontrol", "requeue", f"{job}_3")
    time.sleep(3)  # by now job 2 has saved
    call_slurm(cluster, "scancel", "--signal=USR2", f"{job}_2")


def test_a_sweep_survives_lost_and_requeued_jobs(
    cluster: dict[str, str], sweep: Command, tmp_path: Path
) -> None:
    """Of five jobs two are lost and two requeued; the same command again resumes the lost ones."""
    overrides = ["datamodule.batch_size=4", SLOW, "seed=0,1,2,3,4"]
    driver = sweep(*overrides)
    interrupt(cluster, driver, tmp_path)
    printed, _ = driver.communicate(timeout=300)
    job = newest(cluster)
    columns = "JobID,State,ExitCode,Start,End,NodeList"
    print(printed, call_slurm(cluster, "sacct", "-D", "-X", "-o", columns, "-j", job))

    ended = {"0": "CANCELLED", "1": "FAILED", "2": "COMPLETED", "3": "COMPLETED", "4": "COMPLETED"}
    assert states(cluster, job) == ended
    assert driver.returncode == 2, "two jobs have failed"
    (folder,) = tmp_path.glob("outputs/sweeps/*")
    runs = [next(folder.glob(f"seed-{seed}_*")) for seed in range(5)]
    assert [(run / "metrics.json").exists() for run in runs] == [False, False, True, True, True]

    whole = steps(tmp_path, 4)
    requeued = steps(tmp_path, 3)
    assert steps(tmp_path, 2) == whole, "a preempted job keeps all its steps"
    assert set(requeued) == set(whole), "a requeued job may repeat steps of an epoch"
    assert requeued.count((0, 0)) == 1, "and does not start again"

    # The same command again.
    before = [(run / "metrics.json").stat().st_mtime for run in runs[2:]]
    again = sweep(*overrides)
    printed, _ = again.communicate(timeout=300)
    print(printed)
    assert again.returncode == 0, printed
    assert states(cluster, newest(cluster)) == {"0": "COMPLETED", "1": "COMPLETED"}
    assert [(run / "metrics.json").stat().st_mtime for run in runs[2:]] == before
    for seed in range(2):
        resumed = steps(tmp_path, seed)
        assert set(resumed) == set(whole) and resumed.count((0, 0)) == 1
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
        printed,
        call_slurm(cluster, "sacct", "-o", "JobID,State,NTasks,NodeList", "-j", newest(cluster)),
    )
    assert driver.returncode == 0, printed
    (metrics,) = tmp_path.glob("outputs/sweeps/*/*/metrics.json")
    assert {
        line.split()[2] for line in (metrics.parent / "steps.txt").read_text().splitlines()
    } == {"2"}


def test_processes_that_slurm_does_not_start_are_refused(sweep: Command, tmp_path: Path) -> None:
    """Lightning would start them by the command line of submitit."""
    driver = sweep("trainer.devices=2", "trainer.accelerator=cpu")
    printed, _ = driver.communicate(timeout=300)
    assert driver.returncode == 2
    assert "--ntasks-per-node=1` does not match" in printed


def test_shards_of_a_prediction_run_on_the_cluster(
    cluster: dict[str, str], faces_folder: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "predict.py"),
            "-m",
            "hydra/launcher=slurm",
            f"image={faces_folder}",
            "shard=0..3",
            "shards=4",
            "drawn=null",
        ],
        cwd=tmp_path,
        env=cluster,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (out,) = (tmp_path / "outputs/predictions").iterdir()
    summary = yaml.safe_load((out / "summary.json").read_text())
    assert summary["shards"] == 4 and summary["images"] > 0
    assert (out / "faces.csv").is_file()
