"""Train a model: `python train.py [group=option] [key=value] …`; `python train.py --help` shows them all."""

from pathlib import Path

from omegaconf import DictConfig

from fkp import config, entry, provenance, sweeps


@entry.main("train", sweeps.arguments, sweeps.job)
def train(cfg: DictConfig) -> None:
    """Fit, then test the best weights."""
    values = config.plain(cfg)
    run = provenance.begin(Path(cfg.run_dir), values, config.command())
    import pytorch_lightning as pl

    from fkp import processes, resume, runs

    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    data = config.build(cfg.datamodule)
    if cfg.debug:
        return runs.debug(cfg.debug, data, run.folder)
    run.made_of(data.fingerprint)
    markup = data.source.markup
    module = config.build(cfg.model, markup=markup, recipe=runs.recipe(values, markup.as_dict()))
    if cfg.weights:
        runs.start_from(module, cfg.weights)
    trainer = runs.trainer(cfg, **resume.logging(run))
    with resume.told(run.last), processes.together(trainer, run):
        trainer.fit(module, data, ckpt_path=run.checkpoint, weights_only=True)
        best = trainer.checkpoint_callback.best_model_score
        if best is None:  # a trial such as +trainer.fast_dev_run=true keeps nothing that could be tested
            return
        figures = {sweeps.VALUE: float(best)}
        figures |= trainer.test(module, data, ckpt_path="best", weights_only=True, verbose=False)[0]
    runs.close(run.folder, values, config.varied(cfg), trainer, figures, data.parts["test"].table.paths[0])


if __name__ == "__main__":
    train()
