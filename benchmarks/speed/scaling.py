"""What grows with the set: `python benchmarks/speed/scaling.py`.

A set of `--base` faces (of youtube_faces; drawn ones where it is not there) is trained on at 1, 10 and 100 times its
size. Every face has its own name, person, label row and canvas; only the picture files are links to the base's. Each
size, in processes of its own:
  first   seconds to set up where nothing is kept yet: read the table, digest the pictures, decode
  again   the same, found decoded
  loader  faces per second of the training loader, with the resampling; `cold`: the pixels dropped from the kernel's
          memory before
  two_conv, heatmap  faces per second of steps through the Trainer, loading and all
the processor's ms for each face of these (what others do on the machine changes it little), and the process's own
(anonymous) memory in MB: after the imports, set up, loaded, at the end, and at its peak; `first_peak` that of the
process that decodes. Pages of files (`file`) are the kernel's, which takes them back when it needs them.

    --base 500 --sizes 1 10 100 --batches 200 --steps 20 --experiments two_conv heatmap --workers 0
    --folder where/there/is/room
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

command_line.tune_threads_and_malloc()  # as the scripts do, before torch comes

import pytorch_lightning as pl  # noqa: E402

from fkp.data.labelled_csv import LabelledCsv, write_csv  # noqa: E402
from fkp.data.synthetic import Synthetic  # noqa: E402
from fkp.files.cache import cache_folder  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share
from sets import FOLDER, some  # noqa: E402

CONF = Path(__file__).parents[2] / "conf"
MB = 1e6
WARM = 2  # steps that are not counted
EXPERIMENTS = {"two_conv": [], "heatmap": ["experiment=heatmap"]}


def memory(kind: str = "RssAnon") -> float:
    """MB of this process that are its own (`RssAnon`), or pages of files (`RssFile`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1]) * 1024 / MB


@contextmanager
def peak(figures: dict[str, float], name: str) -> Iterator[None]:
    """Look at the process's own memory fifty times a second, and keep the most."""
    over, most = threading.Event(), [memory()]

    def look() -> None:
        while not over.wait(0.02):
            most[0] = max(most[0], memory())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        figures[name] = max(most[0], memory())


class Clock(pl.Callback):
    """Times the steps after the first few."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        """One step more."""
        if trainer.global_step == WARM:
            self.stopwatch = Stopwatch()
        elif trainer.global_step == trainer.max_steps:
            self.stopwatch.stop()


class Stopwatch:
    """Seconds that pass, and the processor's."""

    def __init__(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Stop."""
        self.seconds, self.processor = (
            time.perf_counter() - self.began[0],
            time.process_time() - self.began[1],
        )

    def figures(self, name: str, faces: int) -> dict[str, float]:
        """Faces per second, and the processor's ms for each."""
        return {
            f"{name}_faces_per_s": faces / self.seconds,
            f"{name}_processor_ms": 1000 * self.processor / faces,
        }


def draw(root: Path, base: Path, times: int) -> None:
    """The base's faces so many times over, in the published layout."""
    faces = LabelledCsv(str(base)).read()
    names = []
    for i in range(times):
        (root / "images" / f"{i:03d}").mkdir(parents=True)
        for path in faces.paths:
            names.append(f"{i:03d}/{path.name}")
            os.link(path, root / "images" / names[-1])
    write_csv(root / "keypoints.csv", names, np.concatenate([faces.points] * times))


def child(root: Path, told: argparse.Namespace) -> dict[str, float]:
    """Set up, and train if the pixels are there; figures by name."""
    first = not list(cache_folder().glob("canvases-*"))
    figures = {"imported_mb": memory()}
    with peak(figures, "first_peak_mb" if first else "peak_mb"):
        data, _ = built(root, told, "two_conv")
        name, watch = "first" if first else "again", Stopwatch()
        data.setup()
        watch.stop()
        faces = sum(len(part) for part in data.splits.values())
        figures |= {f"{name}_s": watch.seconds} | watch.figures(name, faces)
        if first:
            return figures
        figures |= {"set_up_mb": memory(), "faces": faces}
        (pixels,) = cache_folder().glob("canvases-*/pixels.bin")
        for name in ("cold", "loader"):
            if name == "cold":
                with pixels.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            figures |= loaded(name, data, told.batches)
        figures["loaded_mb"], figures["file_mb"] = memory(), memory("RssFile")
        for name in told.experiments:
            again, module = built(root, told, name)
            again.splits = data.splits
            clock = Clock()
            quiet = {
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "enable_checkpointing": False,
            }
            trainer = pl.Trainer(
                max_steps=WARM + told.steps,
                limit_val_batches=0,
                logger=False,
                callbacks=[clock],
                accelerator="cpu",
                **quiet,  # type: ignore[arg-type]
            )
            trainer.fit(module, again)
            figures |= clock.stopwatch.figures(name, told.steps * again.batch_size)
        figures["end_mb"] = memory()
    return figures


def built(root: Path, told: argparse.Namespace, name: str) -> tuple[Any, Any]:
    """The data module and the model of an experiment."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        to = [
            "data=csv",
            f"data.root={root}",
            "run_dir=unused",
            f"datamodule.num_workers={told.workers}",
        ]
        cfg = compose("train", [*EXPERIMENTS[name], *to])
    data = config.build(cfg.datamodule)
    return data, config.build(cfg.model, markup=data.source.markup)


def loaded(name: str, data: Any, batches: int) -> dict[str, float]:
    """What the training loader does."""
    loader, faces, watch = data.train_dataloader(), 0, Stopwatch()
    while batches > 0:
        for batch in loader:
            faces += len(data.on_after_batch_transfer(batch, 0)["image"])
            if (batches := batches - 1) <= 0:
                break
        loader.sampler.set_epoch(loader.sampler.epoch + 1)
    watch.stop()
    return watch.figures(name, faces)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=int, default=500)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--experiments", nargs="*", choices=list(EXPERIMENTS), default=list(EXPERIMENTS)
    )
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="where there is room; the system's folder for such things"
    )
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.child:
        print(json.dumps(child(told.child, told)))
        return

    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=told.folder) as there:
        folder, real = Path(there), FOLDER / "youtube_faces"
        whole = (
            LabelledCsv(str(real), "training_frames_keypoints.csv", "training").read()
            if real.is_dir()
            else Synthetic(told.base).read()
        )
        faces = some(whole, told.base)
        (folder / "base" / "images").mkdir(parents=True)
        for path in faces.paths:
            shutil.copy(path, folder / "base" / "images")
        write_csv(
            folder / "base" / "keypoints.csv", [path.name for path in faces.paths], faces.points
        )
        for size in told.sizes:
            root, cache = folder / f"set{size}", folder / f"cache{size}"
            draw(root, folder / "base", size)
            found: dict[str, float] = {}
            for _ in ("first", "again"):
                command = [sys.executable, __file__, *sys.argv[1:], "--child", str(root)]
                done = subprocess.run(
                    command,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"FKP_CACHE": str(cache)},
                )
                if done.returncode:
                    raise SystemExit(done.returncode)
                found |= json.loads(done.stdout.splitlines()[-1])
            found["disk_mb"] = sum(file.stat().st_size for file in cache.rglob("*")) / MB
            figures |= {f"x{size}_{name}": value for name, value in found.items()}
            for gone in (root, cache):
                shutil.rmtree(gone)
            print(f"x{size}: {found['faces']:.0f} faces", flush=True)
            print(
                "".join(
                    f"  {name:24}{value:10.1f}\n"
                    for name, value in found.items()
                    if name != "faces"
                ),
                flush=True,
            )
    if len(told.sizes) > 1:  # how much each face more adds, once what does not grow is there
        low, high = (f"x{size}_" for size in sorted(told.sizes)[-2:])
        for name in ("set_up", "loaded", "end", "peak", "first_peak"):
            more = figures[f"{high}{name}_mb"] - figures[f"{low}{name}_mb"]
            figures[f"{name}_bytes_a_face"] = (
                more * MB / (figures[f"{high}faces"] - figures[f"{low}faces"])
            )
            print(
                f"{name:12}{figures[f'{name}_bytes_a_face']:8.0f} bytes of own memory for each face more"
            )
    print(json.dumps({name: round(value, 1) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
