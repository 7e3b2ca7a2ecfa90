"""SLURM for a test: Debian's packages, two virtual nodes on this machine, accounting, and nothing left behind.

`python tests/cluster.py` starts one and opens a shell in which sinfo, sbatch and sacct speak to it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

PACKAGES = {
    "slurmctld": "slurm-wlm",
    "slurmdbd": "slurmdbd",
    "munged": "munge",
    "mariadbd": "mariadb-server",
}

# Two nodes of one slot each: of four jobs, two wait. AuthInfo: a requeued job starts once old credentials have expired.
SLURM = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.socket
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={one} CPUs=1
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={two} CPUs=1
PartitionName=all Nodes=one,two Default=YES State=UP
"""
ACCOUNTING = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
DbdHost=localhost
DbdPort={dbd}
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadb}
StorageUser=root
StorageLoc=accounts
"""


def install() -> None:
    """Fetch the packages that are missing; their services are not started.

    Raises:
        RuntimeError: not root, or no apt-get.
    """
    missing = [package for program, package in PACKAGES.items() if not _which(program)]
    if os.geteuid() or (missing and not shutil.which("apt-get")):
        raise RuntimeError("SLURM in a test needs root on Debian or Ubuntu")
    if missing:
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        subprocess.run(["apt-get", "update"], check=True, env=quiet, stdout=subprocess.DEVNULL)
        command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
        subprocess.run(command, check=True, env=quiet, stdout=subprocess.DEVNULL)


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """Two idle nodes, `one` and `two`; yields the environment in which SLURM's commands speak to them.

    Raises:
        RuntimeError: it cannot be installed, or does not come up; with what its daemons had to say.
    """
    install()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="slurm."))
        folder.chmod(0o755)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(_end_all, f"SLURM_CONF={folder}/slurm.conf")
        ports = dict(zip(("ctld", "dbd", "mariadb", "one", "two"), _ports(5), strict=True))
        names = {"folder": folder, "host": socket.gethostname().partition(".")[0], **ports}
        _write(folder / "slurm.conf", SLURM.format(**names), 0o644)
        _write(folder / "slurmdbd.conf", ACCOUNTING.format(**names), 0o600)
        _write(folder / "munge.key", os.urandom(128).hex(), 0o400)
        (folder / "state").mkdir()
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SLURM_")
        }
        environment["SLURM_CONF"] = str(folder / "slurm.conf")

        def start(name: str, *command: str, ready: Callable[[], bool]) -> None:
            log = folder / f"{name}.log"
            with log.open("wb") as file:
                command = (_which(command[0]) or command[0], *command[1:])
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environment,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            stack.callback(_end, process)
            for _ in range(300):
                if ready():
                    return
                if process.poll() is not None:
                    break
                time.sleep(0.1)
            raise RuntimeError(
                f"{name} did not come up:\n{log.read_text(errors='replace')[-2000:]}"
            )

        munge = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("key", "log", "pid", "seed")]
        socket_file = folder / "munge.socket"
        start(
            "munged",
            "munged",
            "-F",
            "--force",
            f"--socket={socket_file}",
            *munge,
            ready=socket_file.exists,
        )
        data = f"--datadir={folder}/mariadb"
        made = ["mariadb-install-db", "--no-defaults", "--user=root", data, "--skip-test-db"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        options = [
            "--no-defaults",
            "--user=root",
            data,
            f"--socket={folder}/mariadb.socket",
            "--skip-grant-tables",
        ]
        options += [
            "--bind-address=127.0.0.1",
            f"--port={ports['mariadb']}",
            f"--pid-file={folder}/mariadb.pid",
        ]
        start("mariadb", "mariadbd", *options, ready=partial(_listens, ports["mariadb"]))
        start("slurmdbd", "slurmdbd", "-D", ready=partial(_listens, ports["dbd"]))
        start(
            "slurmctld",
            "slurmctld",
            "-D",
            "-c",
            ready=partial(_says, "scontrol ping", "UP", environment),
        )
        stack.callback(_cancel, environment)
        for node in ("one", "two"):
            idle = partial(
                _says, f"sinfo --noheader --nodes={node} --format=%T", "idle", environment
            )
            start(f"slurmd.{node}", "slurmd", "-D", "-N", node, ready=idle)
        yield environment


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _write(file: Path, text: str, mode: int) -> None:
    file.write_text(text)
    file.chmod(mode)


def _ports(count: int) -> list[int]:
    """Ports that are free now: all are held until the last is found."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _says(command: str, word: str, environment: dict[str, str]) -> bool:
    done = subprocess.run(command.split(), env=environment, capture_output=True, text=True)
    return done.returncode == 0 and word in done.stdout.split()


def _cancel(environment: dict[str, str]) -> None:
    """No job outlives its cluster."""
    subprocess.run(
        ["scancel", "--state=PENDING", "--user=root"], env=environment, capture_output=True
    )
    subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True)
    for _ in range(20):
        left = subprocess.run(
            ["squeue", "--noheader"], env=environment, capture_output=True, text=True
        )
        if left.returncode or not left.stdout.strip():
            return
        time.sleep(0.5)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with suppress(ProcessLookupError):
        os.killpg(
            process.pid, signal.SIGKILL
        )  # and what it has left: slurmctld has a process for scripts
    process.wait()


def _end_all(told: str) -> None:
    """What a test that failed has left at work: jobs, and SLURM's processes that look after them."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (
                told.encode() in (process / "environ").read_bytes().split(b"\0")
                and int(process.name) != os.getpid()
            ):
                os.kill(int(process.name), signal.SIGKILL)


if __name__ == "__main__":
    with slurm() as environment:
        print(
            "sinfo, sbatch, sacct … speak to two virtual nodes; exit takes them down",
            file=sys.stderr,
        )
        subprocess.run([os.environ.get("SHELL", "/bin/sh")], env=environment)
