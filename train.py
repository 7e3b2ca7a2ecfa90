"""Train a model: `python train.py [group=option] [key=value] …`; `python train.py --help` shows them all."""

import warnings
from pathlib import Path

from omegaconf import DictConfig

from fkp import config, entry


@entry.main("train")
def train(cfg: DictConfig) -> float:
    """Fit, then test the best weights; returns the best validation NME in percent, for sweeps to minimise."""
    from fkp import runs

    values, ckpt_path = config.plain(cfg), runs.existing(cfg.ckpt_path)
    import pytorch_lightning as pl

    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 on torch 2.15, nothing of ours
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    data = config.build(cfg.datamodule)
    if cfg.debug:
        return runs.debug(cfg.debug, data, Path(cfg.run_dir))
    markup = data.source.markup
    module = config.build(cfg.model, markup=markup, recipe=runs.recipe(values, markup.as_dict()))
    if cfg.weights:
        runs.start_from(module, cfg.weights)
    callbacks = [config.build(callback) for callback in cfg.callbacks.values() if callback]
    logger = config.build(cfg.logger) if cfg.logger else False
    precision = runs.precision(cfg.trainer.precision)
    trainer = config.build(cfg.trainer, callbacks=callbacks, logger=logger, precision=precision)

    trainer.fit(module, data, ckpt_path=ckpt_path)
    best = trainer.checkpoint_callback.best_model_score
    if best is None:  # a trial such as +trainer.fast_dev_run=true keeps nothing that could be tested
        return float("nan")
    figures = trainer.test(module, data, ckpt_path=trainer.checkpoint_callback.best_model_path, verbose=False)[0]
    if trainer.is_global_zero:
        photo = data.parts["test"].table.paths[0]
        runs.close(Path(cfg.run_dir), values, config.varied(cfg), logger, figures, photo)
    return float(best)


if __name__ == "__main__":
    train()
