"""Kill sweeps at random moments, repeat their command, and compare with an uninterrupted sweep.

    python benchmarks/reliability/sweep_kills.py [--kills 10] [--seed 0] [--launcher basic]

Either the driver of the sweep or one of its jobs is killed. The jobs are those of `kills.py`, with
three seeds; they are compared bit for bit, as there.
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

from kills import OPTIONS, differences, outcome, train

SEEDS = "seed=0,1,2"


def jobs(driver: "subprocess.Popen[bytes]") -> list[int]:
    """The processes that train, below a driver."""
    found, left = [], [driver.pid]
    while left:
        try:
            children = Path(f"/proc/{(pid := left.pop())}/task/{pid}/children").read_text().split()
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


def main() -> None:  # noqa: PLR0915
    """Kill, repeat, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--launcher", default="basic", help="basic or joblib")
    told = parser.parse_args()
    chance = random.Random(told.seed)
    work = Path(tempfile.mkdtemp())
    options = ["-m", *OPTIONS, SEEDS, f"hydra/launcher={told.launcher}"]
    assert (
        train(work / "first", *OPTIONS, f"run_dir={work / 'first'}").wait() == 0
    )  # draws the faces
    began = time.monotonic()
    assert train(work / "whole", *options, f"hydra.sweep.dir={work / 'whole'}").wait() == 0
    seconds = time.monotonic() - began
    whole = {
        file.parent.name: outcome(file.parent) for file in (work / "whole").glob("*/metrics.json")
    }
    counts = dict.fromkeys(("kills", "of_drivers", "of_jobs", "sweeps", "jobs", "identical"), 0)
    while counts["kills"] < told.kills:
        folder = work / f"sweep{counts['sweeps']}"
        code = None
        while code != 0:
            driver = train(folder, *options, f"hydra.sweep.dir={folder}")
            time.sleep(chance.uniform(0, seconds))
            training = jobs(driver)
            if counts["kills"] < told.kills and driver.poll() is None and training:
                what = chance.choice(("of_drivers", "of_jobs"))
                os.kill(
                    driver.pid if what == "of_drivers" else chance.choice(training), signal.SIGKILL
                )
                counts["kills"] += 1
                counts[what] += 1
            code = driver.wait()
        for name, unbroken in whole.items():
            apart = differences(unbroken, outcome(folder / name))
            counts["jobs"] += 1
            counts["identical"] += not apart
            print(f"sweep {counts['sweeps']}, {name}: {apart or 'identical'}", flush=True)
        counts["sweeps"] += 1
    shutil.rmtree(work)
    print(json.dumps({**counts, "seconds_a_sweep": round(seconds, 1)}))


if __name__ == "__main__":
    main()
