"""Kill trainings at random moments, resume them, and compare with an uninterrupted training.

    python benchmarks/reliability/kills.py [--kills 20] [--seed 0] [--signal KILL]

It trains on a few drawn faces, with dropout, augmentations, averaged weights and early stopping. A
checkpoint is written after every step, so that some kills hit one being written. Each training is
killed at a random moment of the time that a whole one takes, then resumed to its end. Compared bit
for bit: weights, averaged weights, optimizer, schedule, states of callbacks and loops, test
metrics, and TensorBoard's curves.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[2]
OPTIONS = [
    "data.count=60",
    "trainer.max_epochs=4",
    "datamodule.batch_size=6",
    "model.network.width=4",
    "augment.noise.std=0.02",
    "transforms.random_flip.p=0.5",
    "callbacks=early_stopping",
    "callbacks.early_stopping.patience=3",
    "callbacks.last.minutes=0",
    "callbacks.progress=null",
    "+callbacks.average={_target_: pytorch_lightning.callbacks.EMAWeightAveraging, decay: 0.9}",
]


def train(folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start `train.py` in a folder of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FKP_CACHE": str(folder.parent / "cache")}
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    log = (folder.parent / f"{folder.name}.log").open("a")
    return subprocess.Popen(
        command, cwd=folder.parent, env=environment, stdout=log, stderr=subprocess.STDOUT
    )


def outcome(folder: Path) -> dict[str, Any]:
    """Read all results of a run as plain values that can be compared."""
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    written = next((folder / "tensorboard").iterdir())
    events = EventAccumulator(str(written), {"scalars": 0, "images": 0})
    events.Reload()
    curves = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in sorted(events.Tags()["scalars"])
    }
    curves |= {
        tag: [(event.step, hash(event.encoded_image_string)) for event in events.Images(tag)]
        for tag in events.Tags()["images"]
    }
    metrics = json.loads((folder / "metrics.json").read_text())
    return {"checkpoint": plain(checkpoint, str(folder)), "curves": curves, "metrics": metrics}


def plain(value: Any, folder: str) -> Any:
    """Convert a checkpoint's tensors to bytes, and remove the run's own folder from it."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        # Lightning saves the score of the last improvement, but neither restores nor needs it.
        return {
            plain(key, folder): plain(item, folder)
            for key, item in value.items()
            if key != "current_score"
        }
    if isinstance(value, (list, tuple)):
        return [plain(item, folder) for item in value]
    return value.replace(folder, "") if isinstance(value, str) else value


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """List the keys at which two outcomes differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for key in sorted(one.keys() | other.keys(), key=str)
            for found in differences(one.get(key), other.get(key), f"{where}.{key}")
        ]
    return [] if one == other else [where]


def uninterrupted(work: Path) -> tuple[dict[str, Any], float]:
    """Train without interruption; return the outcome and the seconds of the training."""
    for name in ("first", "whole"):  # the first also draws the faces
        process = train(work / name, *OPTIONS, f"run_dir={work / name}")
        assert process.wait() == 0, (work / f"{name}.log").read_text()
    begin, end = ((work / "whole" / name).stat().st_mtime for name in ("run.yaml", "metrics.json"))
    return outcome(work / "whole"), end - begin


def start_and_kill(run: Path, delay: float, number: int) -> bool:
    """Start a training and send it a signal some seconds after it has begun.

    Returns:
        False if the training had finished before.
    """
    shutil.rmtree(run, ignore_errors=True)
    process = train(run, *OPTIONS, f"run_dir={run}")
    while not (run / "run.yaml").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(number)
    process.wait()
    return not (run / "metrics.json").exists()


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", default="KILL", help="KILL, TERM or INT")
    return parser.parse_args()


def main() -> None:
    """Kill, resume, compare, print."""
    args = arguments()
    rng = random.Random(args.seed)
    work = Path(tempfile.mkdtemp())
    whole, seconds = uninterrupted(work)

    counts = dict.fromkeys(("kills", "resumed", "identical", "in_training", "half_written"), 0)
    while (kill := counts["kills"]) < args.kills:
        run = work / f"kill{kill}"
        if not start_and_kill(run, rng.uniform(0, seconds), getattr(signal, f"SIG{args.signal}")):
            continue
        counts["kills"] += 1
        counts["in_training"] += (run / "checkpoints/last.ckpt").exists()
        counts["half_written"] += any(run.glob("checkpoints/.*.part"))

        resumed = train(run, f"resume={run}").wait() == 0
        log = work / f"kill{kill}.log"
        found = differences(whole, outcome(run)) if resumed else [log.read_text()[-500:]]
        counts["resumed"] += resumed
        counts["identical"] += not found
        print(f"{kill}: {found or 'identical'}", flush=True)

    shutil.rmtree(work)
    print(json.dumps({**counts, "seconds_a_run": round(seconds, 1)}))


if __name__ == "__main__":
    main()
