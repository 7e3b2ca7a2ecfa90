"""Kill sweeps at random moments, repeat the command, and compare with an uninterrupted sweep.

    python benchmarks/reliability/sweep_kills.py [--kills 10] [--seed 0] [--launcher basic]

The jobs are those of `kills.py` with three seeds, and are compared bit for bit as there. Each kill
hits the driver or one of its jobs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from kills import OPTIONS, differences, outcome, train

SEEDS = "seed=0,1,2"


def jobs(driver: "subprocess.Popen[bytes]") -> list[int]:
    """Find the training processes below a driver."""
    found, left = [], [driver.pid]
    while left:
        pid = left.pop()
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            continue
        for child in map(int, children):
            left.append(child)
            if b"hydra.run.dir=" in _command(child) or b"resume=" in _command(child):
                found.append(child)
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def uninterrupted(work: Path, options: list[str]) -> tuple[dict[str, Any], float]:
    """Run a sweep without interruption; return the outcome of each job and the seconds."""
    # Draw the faces first: they are no part of the time.
    assert train(work / "first", *OPTIONS, f"run_dir={work / 'first'}").wait() == 0
    start = time.monotonic()
    assert train(work / "whole", *options, f"hydra.sweep.dir={work / 'whole'}").wait() == 0
    seconds = time.monotonic() - start
    folders = [file.parent for file in (work / "whole").glob("*/metrics.json")]
    return {folder.name: outcome(folder) for folder in folders}, seconds


def kill_one(driver: "subprocess.Popen[bytes]", rng: random.Random) -> str | None:
    """Kill the driver or one of its jobs; return which, or None if no job is running."""
    running = jobs(driver)
    if driver.poll() is not None or not running:
        return None
    which = rng.choice(("of_drivers", "of_jobs"))
    os.kill(driver.pid if which == "of_drivers" else rng.choice(running), signal.SIGKILL)
    return which


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--launcher", default="basic", help="basic or joblib")
    return parser.parse_args()


def main() -> None:
    """Kill, repeat, compare, print."""
    args = arguments()
    rng = random.Random(args.seed)
    work = Path(tempfile.mkdtemp())
    options = ["-m", *OPTIONS, SEEDS, f"hydra/launcher={args.launcher}"]
    whole, seconds = uninterrupted(work, options)

    counts = dict.fromkeys(("kills", "of_drivers", "of_jobs", "sweeps", "jobs", "identical"), 0)
    while counts["kills"] < args.kills:
        # Repeat the command of one sweep until it is finished.
        folder = work / f"sweep{counts['sweeps']}"
        code = None
        while code != 0:
            driver = train(folder, *options, f"hydra.sweep.dir={folder}")
            time.sleep(rng.uniform(0, seconds))
            if counts["kills"] < args.kills and (which := kill_one(driver, rng)):
                counts["kills"] += 1
                counts[which] += 1
            code = driver.wait()

        for name, expected in whole.items():
            found = differences(expected, outcome(folder / name))
            counts["jobs"] += 1
            counts["identical"] += not found
            print(f"sweep {counts['sweeps']}, {name}: {found or 'identical'}", flush=True)
        counts["sweeps"] += 1

    shutil.rmtree(work)
    print(json.dumps({**counts, "seconds_a_sweep": round(seconds, 1)}))


if __name__ == "__main__":
    main()
