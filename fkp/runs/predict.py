"""Find faces and their points in images and video: the function behind `predict.py`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from fkp.runs import command_line, config, provenance


@command_line.main("predict")
def predict(cfg: DictConfig) -> None:
    """Write annotated images or videos and JSON, and print what was found.

    Args:
        cfg: of conf/predict.yaml.

    Raises:
        FkpError: a value, file or folder that a user can correct.
    """
    from fkp.inference import writers
    from fkp.inference.media import ImageCollection, find, result_name
    from fkp.inference.predictor import Predictor
    from fkp.inference.video import Video
    from fkp.runs import checkpoints, results

    # Input and model
    image = find(cfg.image, without=provenance.OUTPUTS)
    ckpt = checkpoints.resolve_checkpoint(cfg.ckpt, predicting=cfg.device is None)
    predictor = Predictor.load(
        ckpt, config.build(cfg.detector), cfg.device, cfg.refine_steps, cfg.min_confidence
    )

    # Output: an unfinished folder of the same request is continued.
    request = _request(cfg, ckpt)
    folder = Path(cfg.run_dir)
    if isinstance(image, ImageCollection):
        folder = writers.find_unfinished(folder, request)
        if folder != Path(cfg.run_dir):
            command_line.remove_if_empty(Path(cfg.run_dir))
    out = writers.PredictionWriter(
        predictor, folder, request, cfg.drawn, cfg.pts, cfg.threads
    )

    # Prediction. Each video has a tracker of its own, which numbers its faces from 1.
    follow = partial(config.build, cfg.follow, markup=predictor.markup)
    if isinstance(image, ImageCollection):
        results.print_summary(out.write_collection(image, follow, cfg.frames), folder)
    elif isinstance(image, Video):
        results.print_summary(out.write_video(image, follow(), cfg.frames), folder)
    else:
        faces = out.write_image(image)
        results.print_faces(faces, cfg.image, ckpt, folder / result_name(image), cfg.drawn)


def _request(cfg: DictConfig, ckpt: Path) -> dict[str, Any]:
    """Return the values by which an unfinished folder of the same request is recognised."""
    here = {"ckpt": str(ckpt), "image": str(cfg.image), "from": str(Path.cwd())}
    request = {**config.plain(cfg), **here}
    request.pop("run_dir")
    return request
