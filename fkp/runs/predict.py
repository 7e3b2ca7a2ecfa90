"""Find faces and their points in images and video: the function behind `predict.py`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from fkp.errors import FkpError
from fkp.runs import command_line, config, overrides, provenance

# Keys on which no result depends.
NOT_OF_RESULTS = ("run_dir", "shard", "threads")

# Where predictions lie; those in shards have names of their own.
FOLDER = provenance.OUTPUTS / "predictions"


def arguments(given: Sequence[str]) -> list[str]:
    """Complete the command line of `predict.py`.

    The shards of one prediction share a folder: the one that their overrides name, unless it is
    given. So jobs on several machines find each other, and the same command again continues.
    """
    by_key = {overrides.key(one): one for one in given if "=" in one and not one.startswith("-")}
    if not {"shard", "shards"} & set(by_key):
        return list(given)
    from fkp.runs import sweeps  # here: single jobs do not wait for it

    # Of single shards
    alike = [one for key, one in by_key.items() if key not in ("shard", "threads", "run_dir")]
    name = sweeps.folder_name([one for one in alike if not one.startswith("hydra")], ["image"])
    folder = (FOLDER / f"shards_{name}").as_posix()
    if "run_dir" in by_key:
        folder = overrides.text(by_key["run_dir"])

    if {"-m", "--multirun"} & set(given):
        own = {"hydra.sweep.dir": folder, "hydra.sweep.subdir": ".shards/${shard}"}
    else:
        own = {"hydra.run.dir": f"{folder}/.shards/${{shard}}"}
    wanted = {"run_dir": folder, **own}
    added = [f"{key}={value}" for key, value in wanted.items() if key not in by_key]

    # Beside other overrides: Hydra reads those of one side of its options only.
    place = list(given).index(next(iter(by_key.values())))
    return [*given[:place], *added, *given[place:]]


@command_line.main("predict", arguments)
def predict(cfg: DictConfig) -> None:
    """Write annotated images or videos and JSON, and print what was found.

    Args:
        cfg: of conf/predict.yaml.

    Raises:
        FkpError: a value, file or folder that a user can correct.
    """
    from fkp.detectors import describe
    from fkp.inference import writers
    from fkp.inference.media import ImageCollection, find, result_name
    from fkp.inference.predictor import Predictor
    from fkp.inference.shards import Shard
    from fkp.inference.video import Video
    from fkp.runs import checkpoints, results

    # Input and model
    shard = Shard(cfg.shard, cfg.shards) if cfg.shards != 1 or cfg.shard else None
    image = find(cfg.image, without=provenance.OUTPUTS)
    if shard and not isinstance(image, ImageCollection):
        raise FkpError(
            f"shards={cfg.shards}: only a folder, pattern or list can be shared between jobs",
            key="shards",
        )
    ckpt = checkpoints.resolve_checkpoint(cfg.ckpt, predicting=cfg.device is None)
    predictor = Predictor.load(
        ckpt, config.build(cfg.detector), cfg.device, cfg.refine_steps, cfg.min_confidence
    )

    # Output: an unfinished folder of the same request is continued.
    request = _request(cfg, ckpt)
    folder = Path(cfg.run_dir)
    if isinstance(image, ImageCollection) and not shard:
        folder = _unfinished(folder, request)
    labels = config.plain(cfg.labels)
    out = writers.PredictionWriter(
        predictor, folder, request, cfg.drawn, cfg.pts, labels, _threads(cfg), cfg.parquet
    )

    # Prediction. Each video has a tracker of its own, which numbers its faces from 1.
    follow = partial(config.build, cfg.follow, markup=predictor.markup)
    if isinstance(image, ImageCollection):
        results.print_summary(out.write_collection(image, follow, cfg.frames, shard), folder)
    elif isinstance(image, Video):
        results.print_summary(out.write_video(image, follow(), cfg.frames), folder)
    else:
        faces = out.write_image(image)
        out_name = folder / result_name(image)
        found_by = describe(predictor.detector)
        results.print_faces(faces, cfg.image, ckpt, out_name, cfg.drawn, found_by)


def _request(cfg: DictConfig, ckpt: Path) -> dict[str, Any]:
    """Return the values by which an unfinished folder of the same request is recognised."""
    here = {"ckpt": str(ckpt), "image": str(cfg.image), "from": str(Path.cwd())}
    request = {**config.plain(cfg), **here}
    return {key: value for key, value in request.items() if key not in NOT_OF_RESULTS}


def _unfinished(run_dir: Path, request: dict[str, Any]) -> Path:
    """Return the folder of a stopped prediction of the same request, else the new one."""
    from fkp.inference.unfinished import find_unfinished

    folder = find_unfinished(run_dir, request)
    if folder != run_dir:
        command_line.remove_if_empty(run_dir)
    return folder


def _threads(cfg: DictConfig) -> int | None:
    """Return the number of threads; jobs that run at the same time share the cores."""
    if cfg.threads is not None:
        return int(cfg.threads)
    if cfg.shards == 1:
        return None
    from fkp.runs import sweeps

    return sweeps.threads_of_job()
