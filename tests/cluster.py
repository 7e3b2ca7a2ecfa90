"""Start a SLURM cluster for a test: two virtual nodes on this machine, with accounting.

It uses Debian's packages, and removes all its processes and files at the end.
`python tests/cluster.py` starts one and opens a shell in which sinfo, sbatch and sacct use it.
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

# Two nodes of one slot each: of four jobs, two wait. AuthInfo: a requeued job starts once its old
# credentials have expired.
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
    """Install missing packages without starting their services.

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


class _Daemons:
    """Start SLURM's daemons in a folder, and end them with a stack of contexts."""

    def __init__(self, folder: Path, environment: dict[str, str], stack: ExitStack):
        self.folder, self.environment, self.stack = folder, environment, stack

    def start(self, name: str, *command: str, ready: Callable[[], bool]) -> None:
        """Start a daemon and wait until it is ready.

        Raises:
            RuntimeError: it does not start; with its output.
        """
        log = self.folder / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                (_which(command[0]) or command[0], *command[1:]),
                cwd=self.folder,
                env=self.environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.stack.callback(_end, process)
        for _ in range(300):
            if ready():
                return
            if process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"{name} did not start:\n{log.read_text(errors='replace')[-2000:]}")


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """Start two idle nodes, `one` and `two`; yield the environment for SLURM's commands.

    Raises:
        RuntimeError: SLURM cannot be installed or started; with the output of its daemons.
    """
    install()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="slurm."))
        folder.chmod(0o755)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(_end_all, f"SLURM_CONF={folder}/slurm.conf")
        ports = dict(zip(("ctld", "dbd", "mariadb", "one", "two"), _ports(5), strict=True))
        _configure(folder, ports)

        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SLURM_")
        }
        environment["SLURM_CONF"] = str(folder / "slurm.conf")
        daemons = _Daemons(folder, environment, stack)
        _start_accounting(daemons, ports)

        up = partial(_says, "scontrol ping", "UP", environment)
        daemons.start("slurmctld", "slurmctld", "-D", "-c", ready=up)
        stack.callback(_cancel, environment)
        for node in ("one", "two"):
            state = f"sinfo --noheader --nodes={node} --format=%T"
            idle = partial(_says, state, "idle", environment)
            daemons.start(f"slurmd.{node}", "slurmd", "-D", "-N", node, ready=idle)
        yield environment


def _configure(folder: Path, ports: dict[str, int]) -> None:
    """Write the files of the configuration."""
    host = socket.gethostname().partition(".")[0]
    names = {"folder": folder, "host": host, **ports}
    _write(folder / "slurm.conf", SLURM.format(**names), 0o644)
    _write(folder / "slurmdbd.conf", ACCOUNTING.format(**names), 0o600)
    _write(folder / "munge.key", os.urandom(128).hex(), 0o400)
    (folder / "state").mkdir()


def _start_accounting(daemons: _Daemons, ports: dict[str, int]) -> None:
    """Start what SLURM's accounting needs: credentials, a database and its daemon."""
    folder = daemons.folder
    credentials = folder / "munge.socket"
    munge = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("key", "log", "pid", "seed")]
    munge = ["munged", "-F", "--force", f"--socket={credentials}", *munge]
    daemons.start("munged", *munge, ready=credentials.exists)

    common = ["--no-defaults", "--user=root", f"--datadir={folder}/mariadb"]
    install_db = ["mariadb-install-db", *common, "--skip-test-db"]
    quiet = subprocess.DEVNULL
    subprocess.run(install_db, check=True, stdout=quiet, stderr=quiet)
    database = ["mariadbd", *common, f"--socket={folder}/mariadb.socket", "--skip-grant-tables"]
    database += ["--bind-address=127.0.0.1", f"--port={ports['mariadb']}"]
    database += [f"--pid-file={folder}/mariadb.pid"]
    daemons.start("mariadb", *database, ready=partial(_listens, ports["mariadb"]))
    daemons.start("slurmdbd", "slurmdbd", "-D", ready=partial(_listens, ports["dbd"]))


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _write(file: Path, text: str, mode: int) -> None:
    file.write_text(text)
    file.chmod(mode)


def _ports(count: int) -> list[int]:
    """Find free ports; all are bound until the last is found."""
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
    """Cancel all jobs and wait for their end."""
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
    """End a daemon and the processes that it has started, such as slurmctld's for scripts."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end_all(variable: str) -> None:
    """Kill what a failed test has left: processes with a given environment variable."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            variables = (process / "environ").read_bytes().split(b"\0")
            if variable.encode() in variables and int(process.name) != os.getpid():
                os.kill(int(process.name), signal.SIGKILL)


if __name__ == "__main__":
    with slurm() as environment:
        print(
            "sinfo, sbatch, sacct … use two virtual nodes; exit stops them",
            file=sys.stderr,
        )
        subprocess.run([os.environ.get("SHELL", "/bin/sh")], env=environment)
