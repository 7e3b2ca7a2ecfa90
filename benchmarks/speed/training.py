"""Compare the time of a training epoch with that of a bare loop.

    python benchmarks/speed/training.py path/to/youtube_faces

Measures for each experiment, after an epoch to warm up, in turn within one run:
  trainer    a training epoch through the Trainer: loading, resampling, augmentation, logging
  bare       the same network on the same batches, already in memory, in a loop of five lines
  published  the same network on the loader of the published system: each image is read by
             matplotlib when it is needed; Rescale, RandomCrop, Normalize, ToTensor; 4 processes
Then epochs with 0, 1 and 2 worker processes, in turn. Prints medians, and the memory after each
epoch.

`trainer_over_bare_cpu` compares the time of the processor instead of the clock's: on a machine that
others use, too, it scatters less. Measure it with OMP_NUM_THREADS=1, because threads that wait for
each other count as busy. The progress bar is off; it costs nothing where there is no terminal.
"""

import argparse
import copy
import gc
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hydra import compose, initialize_config_dir

from fkp.runs import command_line, config

# As the entry scripts do, before torch is imported.
command_line.tune_threads_and_malloc()

import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from fkp.data.dataset import FacialKeypointsDataset  # noqa: E402
from fkp.module import data_of, to_crop_space  # noqa: E402

# The modules that the benchmarks share.
sys.path.insert(0, str(Path(__file__).parents[1]))
from sets import FOLDER  # noqa: E402

CONF = Path(__file__).parents[2] / "conf"
QUIET = ["+trainer.enable_progress_bar=false", "trainer.enable_model_summary=false"]

# Images (B, C, h, w) and points (B, K, 2) in CROP pixels.
Pair = tuple[Tensor, Tensor]


class Published(Dataset[Pair]):
    """Read the data set as the published system does."""

    def __init__(self, faces: FacialKeypointsDataset, size: int):
        self.paths, self.points, self.size = faces.table.paths, faces.table.points, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Pair:
        from matplotlib.image import imread

        # Rescale
        image, points = np.asarray(imread(self.paths[index]))[:, :, :3], self.points[index]
        factor = self.size * 250 / 224 / min(image.shape[:2])
        image = cv2.resize(image, None, fx=factor, fy=factor)

        # RandomCrop
        top, left = (np.random.randint(0, max(1, side - self.size)) for side in image.shape[:2])
        image = image[top : top + self.size, left : left + self.size]

        # Normalize, ToTensor
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        return torch.from_numpy(gray)[None], torch.from_numpy(points * factor - (left, top)).float()


class Interleaved(pl.Callback):
    """Time each training epoch of the Trainer, and after it an epoch of each alternative.

    Args:
        alternatives: time the bare loop and the published loader, too.
    """

    def __init__(self, alternatives: bool):
        self.alternatives = alternatives
        self.seconds = defaultdict[str, list[float]](list)
        self.cpu_seconds = defaultdict[str, list[float]](list)
        self.memory: list[float] = []
        self.epochs: dict[str, Callable[[], object]] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Start the clock."""
        gc.collect()
        self._start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        """Stop the clock after the last batch, before validation; run the alternatives."""
        if index + 1 < trainer.num_training_batches:
            return
        self._stop("trainer")
        self.memory.append(_memory())

        if self.alternatives and not self.epochs:
            self.epochs = _alternatives(trainer, module)
        for name, run_epoch in self.epochs.items():
            self._start()
            run_epoch()
            self._stop(name)

    def _start(self) -> None:
        self.began, self.cpu_began = time.perf_counter(), time.process_time()

    def _stop(self, name: str) -> None:
        self.seconds[name].append(time.perf_counter() - self.began)
        self.cpu_seconds[name].append(time.process_time() - self.cpu_began)


def _alternatives(trainer: pl.Trainer, module: Any) -> dict[str, Callable[[], object]]:
    """Make the functions that run an epoch without the Trainer."""
    data = data_of(trainer)
    faces, clip = data.splits["train"], trainer.gradient_clip_val
    published = Published(faces, faces.crops([0]).size[0])
    loader = DataLoader(published, data.batch_size, shuffle=True, num_workers=4)

    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]
    pairs = [
        (batch["image"], to_crop_space(batch["points"], batch["to_crop"])) for batch in batches
    ]
    return {"bare": _loop(module, pairs, clip), "published": _loop(module, loader, clip)}


def _loop(module: Any, batches: Iterable[Pair], clip: float | None) -> Callable[[], object]:
    """Make an epoch in bare PyTorch, on a copy of the network."""
    network, codec, criterion = copy.deepcopy(module.network).train(), module.codec, module.loss
    optimizer = module.optimizer(network.parameters())

    def epoch() -> None:
        for images, points in batches:
            optimizer.zero_grad()
            criterion(codec.coordinates(network(images)), codec.encode(points)).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimizer.step()

    return epoch


def run(
    experiment: str,
    root: str,
    epochs: int,
    workers: int,
    alternatives: bool,
    faces: int | None = None,
) -> Interleaved:
    """Train as `train.py` does, on so many faces or on all, and time it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        initialize_config_dir(str(CONF), version_base="1.3"),
    ):
        overrides = [
            f"experiment={experiment}",
            "data=youtube_faces",
            f"data.root={root}",
            f"run_dir={folder}",
            f"trainer.max_epochs={epochs}",
            f"datamodule.num_workers={workers}",
            f"datamodule.train_faces={'null' if faces is None else faces}",
            *QUIET,
        ]
        cfg = compose("train", overrides)
        pl.seed_everything(0, workers=True, verbose=False)
        data = config.build(cfg.datamodule)
        module = config.build(cfg.model, markup=data.source.markup)

        timer = Interleaved(alternatives)
        callbacks = [
            config.build(callback) for name, callback in cfg.callbacks.items() if name != "progress"
        ]
        logger = config.build(cfg.logger)
        trainer = config.build(cfg.trainer, callbacks=[*callbacks, timer], logger=logger)
        trainer.fit(module, data)
    return timer


def _memory() -> float:
    """Return the resident memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def compare(experiment: str, root: str, rounds: int, faces: int | None) -> dict[str, Any]:
    """Time an experiment through the Trainer and through the alternatives."""
    timer = run(experiment, root, 1 + rounds, 0, alternatives=True, faces=faces)
    seconds, cpu = timer.seconds, timer.cpu_seconds
    rounded = {name: [round(value, 2) for value in values] for name, values in seconds.items()}
    print(f"{experiment}: seconds per epoch {rounded}")

    # Ratios within each round, without the first, which warms up.
    timed = {name: values[1:] for name, values in seconds.items()}
    over = [a / b for a, b in zip(timed["trainer"], timed["bare"], strict=True)]
    over_cpu = [a / b for a, b in zip(cpu["trainer"][1:], cpu["bare"][1:], strict=True)]
    gain = [a / b for a, b in zip(timed["published"], timed["trainer"], strict=True)]
    medians = {name: statistics.median(values) for name, values in timed.items()}
    return {
        **{f"{experiment}_{name}_s": round(value, 2) for name, value in medians.items()},
        f"{experiment}_trainer_over_bare": round(statistics.median(over), 3),
        f"{experiment}_trainer_over_bare_cpu": round(statistics.median(over_cpu), 3),
        f"{experiment}_published_over_fkp": round(statistics.median(gain), 2),
    }


def compare_workers(experiment: str, root: str, rounds: int, counts: list[int]) -> dict[str, Any]:
    """Time an experiment with several numbers of worker processes, in turn."""
    metrics: dict[str, Any] = {}
    seconds: dict[int, list[float]] = defaultdict(list)
    for _ in range(rounds if counts else 0):
        for count in counts:
            timer = run(experiment, root, 3, count, alternatives=False)
            seconds[count] += timer.seconds["trainer"][1:]
            metrics[f"{experiment}_workers{count}_mib"] = [round(mib) for mib in timer.memory]

    for count, values in seconds.items():
        metrics[f"{experiment}_workers{count}_s"] = round(statistics.median(values), 2)
        rounded = [round(value, 2) for value in values]
        print(f"{experiment}: {count} worker processes: seconds per epoch {rounded}")
        print(f"  MiB after each epoch: {metrics[f'{experiment}_workers{count}_mib']}")
    return metrics


def main() -> None:
    """Measure each experiment and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", default=str(FOLDER / "youtube_faces"))
    parser.add_argument("--experiments", nargs="+", default=["seed", "heatmap"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--faces", type=int, help="compare on so many training faces; else on all")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    options = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    metrics: dict[str, Any] = {"threads": torch.get_num_threads()}
    for experiment in options.experiments:
        metrics |= compare(experiment, options.root, options.rounds, options.faces)
        metrics |= compare_workers(experiment, options.root, options.rounds, options.workers)

    # The first experiment's ratios also have short names.
    for name in ("trainer_over_bare", "trainer_over_bare_cpu", "published_over_fkp"):
        metrics[name] = metrics[f"{options.experiments[0]}_{name}"]
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
