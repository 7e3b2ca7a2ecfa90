"""How much of a training epoch is the network's: `python benchmarks/speed/training.py path/to/youtube_faces`.

For each experiment, after an epoch to warm up and then in turn, within one run:
  trainer    a training epoch through the Trainer: loading, resampling, augmenting, logging
  bare       the same network, the same batches, on tensors already in memory, in a loop of five lines
  published  the same network on the published system's own loader: each picture read by matplotlib when its turn
             comes, Rescale, RandomCrop, Normalize, ToTensor, 4 processes
Then epochs with 0, 1 and 2 loader processes in turn. Prints medians, and memory after each epoch.

    --experiments seed heatmap --rounds 3 --workers 0 1 2
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

command_line.tune_threads_and_malloc()  # as the scripts do, before torch comes

import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from fkp.data.dataset import FacialKeypointsDataset  # noqa: E402
from fkp.module import to_crop_space  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share
from sets import FOLDER  # noqa: E402

CONF = Path(__file__).parents[2] / "conf"
QUIET = ["+trainer.enable_progress_bar=false", "trainer.enable_model_summary=false"]
Pair = tuple[Tensor, Tensor]  # images (B, C, h, w) and points (B, K, 2) in CROP pixels


class Published(Dataset[Pair]):
    """The published system's data set, read as it read it."""

    def __init__(self, faces: FacialKeypointsDataset, size: int):
        self.paths, self.points, self.size = faces.table.paths, faces.table.points, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Pair:
        from matplotlib.image import imread

        image, points = np.asarray(imread(self.paths[index]))[:, :, :3], self.points[index]
        factor = self.size * 250 / 224 / min(image.shape[:2])
        image = cv2.resize(image, None, fx=factor, fy=factor)
        top, left = (np.random.randint(0, max(1, side - self.size)) for side in image.shape[:2])
        image = image[top : top + self.size, left : left + self.size]
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        return torch.from_numpy(gray)[None], torch.from_numpy(points * factor - (left, top)).float()


class Interleaved(pl.Callback):
    """Times each training epoch of the Trainer, and after it an epoch of each of the others."""

    def __init__(self, others: bool):
        self.others, self.seconds = others, defaultdict[str, list[float]](list)
        self.memory: list[float] = []
        self.rivals: dict[str, Callable[[], object]] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Remember when."""
        gc.collect()
        self.began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        """After the last batch: the epoch is over, validation follows."""
        if index + 1 < trainer.num_training_batches:
            return
        self.seconds["trainer"].append(time.perf_counter() - self.began)
        self.memory.append(_memory())
        if self.others and not self.rivals:
            self.rivals = self._rivals(trainer, module)
        for name, run in self.rivals.items():
            began = time.perf_counter()
            run()
            self.seconds[name].append(time.perf_counter() - began)

    def _rivals(self, trainer: pl.Trainer, module: Any) -> dict[str, Callable[[], object]]:
        data = trainer.datamodule  # type: ignore[attr-defined]
        faces = data.splits["train"]
        loader = DataLoader(
            Published(faces, faces.crops([0]).size[0]), data.batch_size, shuffle=True, num_workers=4
        )
        clip = trainer.gradient_clip_val
        ready = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]
        pairs = [
            (batch["image"], to_crop_space(batch["points"], batch["to_crop"])) for batch in ready
        ]
        return {"bare": _loop(module, pairs, clip), "published": _loop(module, loader, clip)}


def _loop(module: Any, batches: Iterable[Pair], clip: float | None) -> Callable[[], object]:
    """An epoch in bare PyTorch, on a copy of the network."""
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


def run(experiment: str, root: str, epochs: int, workers: int, others: bool) -> Interleaved:
    """Train as `train.py` does, and time it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        initialize_config_dir(str(CONF), version_base="1.3"),
    ):
        told = [
            f"experiment={experiment}",
            "data=youtube_faces",
            f"data.root={root}",
            f"run_dir={folder}",
        ]
        cfg = compose(
            "train",
            [*told, f"trainer.max_epochs={epochs}", f"datamodule.num_workers={workers}", *QUIET],
        )
        pl.seed_everything(0, workers=True, verbose=False)
        data = config.build(cfg.datamodule)
        module = config.build(cfg.model, markup=data.source.markup)
        timer = Interleaved(others)
        callbacks = [
            config.build(callback) for name, callback in cfg.callbacks.items() if name != "progress"
        ]
        logger = config.build(cfg.logger)
        trainer = config.build(cfg.trainer, callbacks=[*callbacks, timer], logger=logger)
        trainer.fit(module, data)
    return timer


def _memory() -> float:
    """Resident memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", default=str(FOLDER / "youtube_faces"))
    parser.add_argument("--experiments", nargs="+", default=["seed", "heatmap"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    arguments = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    figures: dict[str, Any] = {"threads": torch.get_num_threads()}
    for experiment in arguments.experiments:
        timer = run(experiment, arguments.root, 1 + arguments.rounds, 0, others=True)
        seconds = {name: statistics.median(times[1:]) for name, times in timer.seconds.items()}
        figures |= {f"{experiment}_{name}_s": round(value, 2) for name, value in seconds.items()}
        pairs = list(
            zip(
                *(timer.seconds[name][1:] for name in ("trainer", "bare", "published")), strict=True
            )
        )
        over = statistics.median(ours / bare for ours, bare, _ in pairs)
        gain = statistics.median(theirs / ours for ours, _, theirs in pairs)
        figures |= {f"{experiment}_trainer_over_bare": round(over, 3)}
        figures |= {f"{experiment}_published_over_fkp": round(gain, 2)}
        print(
            f"{experiment}: s an epoch",
            {name: [round(t, 2) for t in ts] for name, ts in timer.seconds.items()},
        )

        by_count: dict[int, list[float]] = defaultdict(list)
        for _ in range(arguments.rounds if arguments.workers else 0):
            for count in arguments.workers:
                timer = run(experiment, arguments.root, 3, count, others=False)
                by_count[count] += timer.seconds["trainer"][1:]
                figures[f"{experiment}_workers{count}_mib"] = [round(m) for m in timer.memory]
        for count, times in by_count.items():
            figures[f"{experiment}_workers{count}_s"] = round(statistics.median(times), 2)
            print(
                f"{experiment}: {count} loader processes: s an epoch {[round(t, 2) for t in times]}"
            )
            print(
                f"  MiB of the process after each epoch {figures[f'{experiment}_workers{count}_mib']}"
            )
    first = arguments.experiments[0]
    for name in ("trainer_over_bare", "published_over_fkp"):
        figures[name] = figures[f"{first}_{name}"]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
