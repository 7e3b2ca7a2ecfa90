"""Find faces and their points: `python predict.py image=…`, a picture, folder, pattern, list, film or camera."""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from fkp.runs import command_line, config


@command_line.main("predict")
def predict(cfg: DictConfig) -> None:
    """Write drawn copies and JSON, a table of many images, and for each video a video; print what was found."""
    from fkp.inference import writers
    from fkp.inference.media import ImageCollection, find, result_name
    from fkp.inference.predictor import Predictor
    from fkp.inference.video import Video
    from fkp.runs import results

    image, ckpt = (
        find(cfg.image, without=results.OUTPUTS),
        results.resolve_checkpoint(cfg.ckpt, predicting=cfg.device is None),
    )
    predictor = Predictor.load(
        ckpt, config.build(cfg.detector), cfg.device, cfg.refine_steps, cfg.min_confidence
    )
    asked = {
        **config.plain(cfg),
        "ckpt": str(ckpt),
        "image": str(cfg.image),
        "from": str(Path.cwd()),
    }
    asked.pop("run_dir")
    folder = Path(cfg.run_dir)
    if isinstance(image, ImageCollection):
        folder = writers.find_unfinished(folder, asked)
        if folder != Path(cfg.run_dir):
            command_line.remove_if_empty(Path(cfg.run_dir))
    out = writers.PredictionWriter(predictor, folder, asked, cfg.drawn, cfg.pts)
    follow = partial(
        config.build, cfg.follow, markup=predictor.markup
    )  # each video's faces are numbered from 1
    if isinstance(image, ImageCollection):
        results.print_summary(out.write_collection(image, follow, cfg.frames), folder)
    elif isinstance(image, Video):
        results.print_summary(out.write_video(image, follow(), cfg.frames), folder)
    else:
        results.print_faces(
            out.write_image(image), cfg.image, ckpt, folder / result_name(image), cfg.drawn
        )


if __name__ == "__main__":
    predict()
