"""Measure how memory and speed grow with the number of faces: `python benchmarks/speed/scaling.py`.

Sets of 1, 10 and 100 times `--base` faces are made and trained on. The faces are those of
youtube_faces, or synthetic ones if it is not there. Every face has its own file name, person, label
row and cached crop; only the image files are hard links to those of the base. Each size is measured
in processes of its own:
  first   seconds to set up without a cache: read the table, hash the images, decode them
  again   the same, with the image cache
  loader  faces per second of the training loader, resampling included; `cold`: after the cached
          crops were dropped from the kernel's page cache
  two_conv, heatmap
          faces per second of training steps through the Trainer, loading included
For each of these, also the processor's milliseconds per face, which depend little on other work on
the machine. Memory is the process's own (anonymous) memory in MB: after the imports, set up, after
loading, at the end, and at its peak; `first_peak` is the peak of the process that decodes. Pages of
files (`file`) belong to the kernel, which takes them back when it needs them.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir

from fkp.runs import command_line, config

# As the entry scripts do, before torch is imported.
command_line.tune_threads_and_malloc()

import pytorch_lightning as pl  # noqa: E402

from fkp.data.labelled_csv import LabelledCsv, write_csv  # noqa: E402
from fkp.data.synthetic import Synthetic  # noqa: E402
from fkp.data.table import FaceTable  # noqa: E402
from fkp.files.cache import cache_folder  # noqa: E402

# The modules that the benchmarks share.
sys.path.insert(0, str(Path(__file__).parents[1]))
from sets import FOLDER, some  # noqa: E402

CONF = Path(__file__).parents[2] / "conf"
MB = 1e6

# Steps that are not timed.
WARM_UP = 2

EXPERIMENTS = {"two_conv": [], "heatmap": ["experiment=heatmap"]}


def memory(kind: str = "RssAnon") -> float:
    """Return this process's own memory (`RssAnon`) or pages of files (`RssFile`), MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1]) * 1024 / MB


@contextmanager
def peak(metrics: dict[str, float], name: str) -> Iterator[None]:
    """Sample the process's own memory fifty times a second, and record the maximum."""
    over, most = threading.Event(), [memory()]

    def sample() -> None:
        while not over.wait(0.02):
            most[0] = max(most[0], memory())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        metrics[name] = max(most[0], memory())


class Stopwatch:
    """Measure real time and processor time, in seconds."""

    def __init__(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Stop."""
        began, processor_began = self.began
        self.seconds = time.perf_counter() - began
        self.processor = time.process_time() - processor_began

    def metrics(self, name: str, faces: int) -> dict[str, float]:
        """Return faces per second, and the processor's milliseconds per face."""
        return {
            f"{name}_faces_per_s": faces / self.seconds,
            f"{name}_processor_ms": 1000 * self.processor / faces,
        }


class Clock(pl.Callback):
    """Time the training steps after the first few."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        """Start after the last step of the warm-up, stop after the last step."""
        if trainer.global_step == WARM_UP:
            self.stopwatch = Stopwatch()
        elif trainer.global_step == trainer.max_steps:
            self.stopwatch.stop()


def build(root: Path, options: argparse.Namespace, name: str) -> tuple[Any, Any]:
    """Build the data module and the model of an experiment."""
    overrides = [
        *EXPERIMENTS[name],
        "data=csv",
        f"data.root={root}",
        "run_dir=unused",
        f"datamodule.num_workers={options.workers}",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides)
    data = config.build(cfg.datamodule)
    return data, config.build(cfg.model, markup=data.source.markup)


def time_loader(name: str, data: Any, batches: int) -> dict[str, float]:
    """Time the training loader over a number of batches."""
    loader, faces, watch = data.train_dataloader(), 0, Stopwatch()
    while batches > 0:
        for batch in loader:
            faces += len(data.on_after_batch_transfer(batch, 0)["image"])
            if (batches := batches - 1) <= 0:
                break
        loader.sampler.set_epoch(loader.sampler.epoch + 1)
    watch.stop()
    return watch.metrics(name, faces)


def time_training(
    root: Path, options: argparse.Namespace, name: str, splits: Any
) -> dict[str, float]:
    """Time training steps of an experiment on splits that are set up."""
    data, module = build(root, options, name)
    data.splits = splits
    clock = Clock()
    trainer = pl.Trainer(
        max_steps=WARM_UP + options.steps,
        limit_val_batches=0,
        logger=False,
        callbacks=[clock],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, data)
    return clock.stopwatch.metrics(name, options.steps * data.batch_size)


def drop_page_cache() -> None:
    """Drop the cached crops from the kernel's page cache."""
    (pixels,) = cache_folder().glob("canvases-*/pixels.bin")
    with pixels.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(root: Path, options: argparse.Namespace) -> dict[str, float]:
    """Set up; with an image cache, also load and train. This runs in a process of its own."""
    first = not list(cache_folder().glob("canvases-*"))
    metrics = {"imported_mb": memory()}
    with peak(metrics, "first_peak_mb" if first else "peak_mb"):
        # Set up.
        data, _ = build(root, options, "two_conv")
        name, watch = "first" if first else "again", Stopwatch()
        data.setup()
        watch.stop()
        faces = sum(len(split) for split in data.splits.values())
        metrics |= {f"{name}_s": watch.seconds} | watch.metrics(name, faces)
        if first:
            return metrics
        metrics |= {"set_up_mb": memory(), "faces": faces}

        # Load.
        drop_page_cache()
        metrics |= time_loader("cold", data, options.batches)
        metrics |= time_loader("loader", data, options.batches)
        metrics |= {"loaded_mb": memory(), "file_mb": memory("RssFile")}

        # Train.
        for name in options.experiments:
            metrics |= time_training(root, options, name, data.splits)
        metrics["end_mb"] = memory()
    return metrics


def write_base(folder: Path, count: int) -> None:
    """Write the faces of the base, in the published layout."""
    real = FOLDER / "youtube_faces"
    every: FaceTable
    if real.is_dir():
        every = LabelledCsv(str(real), "training_frames_keypoints.csv", "training").read()
    else:
        every = Synthetic(count).read()
    faces = some(every, count)

    (folder / "images").mkdir(parents=True)
    for path in faces.paths:
        shutil.copy(path, folder / "images")
    write_csv(folder / "keypoints.csv", [path.name for path in faces.paths], faces.points)


def write_set(root: Path, base: Path, times: int) -> None:
    """Write a set of the base's faces, repeated, in the published layout."""
    faces = LabelledCsv(str(base)).read()
    names = []
    for i in range(times):
        (root / "images" / f"{i:03d}").mkdir(parents=True)
        for path in faces.paths:
            names.append(f"{i:03d}/{path.name}")
            os.link(path, root / "images" / names[-1])
    write_csv(root / "keypoints.csv", names, np.concatenate([faces.points] * times))


def measure_size(folder: Path, size: int) -> dict[str, float]:
    """Make the set of a size, measure it in two processes, and remove it."""
    root, cache = folder / f"set{size}", folder / f"cache{size}"
    write_set(root, folder / "base", size)

    # The first process decodes, the second finds the image cache.
    metrics: dict[str, float] = {}
    command = [sys.executable, __file__, *sys.argv[1:], "--child", str(root)]
    environment = os.environ | {"FKP_CACHE": str(cache)}
    for _ in ("first", "again"):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
        if done.returncode:
            raise SystemExit(done.returncode)
        metrics |= json.loads(done.stdout.splitlines()[-1])
    metrics["disk_mb"] = sum(file.stat().st_size for file in cache.rglob("*")) / MB

    shutil.rmtree(root)
    shutil.rmtree(cache)
    return metrics


def bytes_per_face(metrics: dict[str, float], sizes: list[int]) -> dict[str, float]:
    """Compute the memory that each additional face takes, from the two largest sizes."""
    low, high = (f"x{size}_" for size in sorted(sizes)[-2:])
    faces = metrics[f"{high}faces"] - metrics[f"{low}faces"]
    return {
        f"{name}_bytes_a_face": (metrics[f"{high}{name}_mb"] - metrics[f"{low}{name}_mb"])
        * (MB / faces)
        for name in ("set_up", "loaded", "end", "peak", "first_peak")
    }


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, names = parser.add_argument, list(EXPERIMENTS)
    add("--base", type=int, default=500, help="number of faces of the base")
    add("--sizes", type=int, nargs="+", default=[1, 10, 100], help="multiples of the base")
    add("--batches", type=int, default=200, help="batches to load")
    add("--steps", type=int, default=20, help="training steps")
    add("--experiments", nargs="*", choices=names, default=names)
    add("--workers", type=int, default=0, help="worker processes of the loader")
    add("--folder", type=Path, help="where to make the sets (default: the temporary folder)")
    add("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure each size and print."""
    options = read_options()
    if options.child:
        print(json.dumps(measure(options.child, options)))
        return

    metrics: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_base(folder / "base", options.base)
        for size in options.sizes:
            found = measure_size(folder, size)
            metrics |= {f"x{size}_{name}": value for name, value in found.items()}
            print(f"x{size}: {found.pop('faces'):.0f} faces")
            for name, value in found.items():
                print(f"  {name:24}{value:10.1f}")
            print(flush=True)

    if len(options.sizes) > 1:
        growth = bytes_per_face(metrics, options.sizes)
        for name, value in growth.items():
            print(f"{name:24}{value:8.0f} bytes of own memory for each additional face")
        metrics |= growth
    print(json.dumps({name: round(value, 1) for name, value in metrics.items()}))


if __name__ == "__main__":
    main()
