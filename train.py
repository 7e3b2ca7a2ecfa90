"""Train a model: `python train.py [group=option] [key=value] …`; `python train.py --help` shows them all."""

from pathlib import Path

from omegaconf import DictConfig

from fkp.errors import FkpError
from fkp.runs import command_line, config, provenance, sweeps


@command_line.main("train", sweeps.arguments, sweeps.job)
def train(cfg: DictConfig) -> None:
    """Fit, then test the best weights."""
    if cfg.debug not in (None, "augment"):
        raise FkpError(f"debug={cfg.debug}: there is augment")
    values = config.plain(cfg)
    run = provenance.begin(Path(cfg.run_dir), values, config.command())
    import pytorch_lightning as pl

    from fkp.runs import launch, results, resume

    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    data = config.build(cfg.datamodule)
    if cfg.debug:
        return results.debug(data, run.folder)
    trainer = results.trainer(cfg, **resume.logging(run))
    run.made_of(data.fingerprint)
    markup = data.source.markup
    module = config.build(cfg.model, markup=markup, recipe=results.recipe(values, markup.as_dict()))
    if cfg.weights:
        results.start_from(module, cfg.weights)
    results.show_network(module)
    with resume.readable_errors(run.last), launch.launch(trainer, run):
        trainer.fit(module, data, ckpt_path=run.checkpoint, weights_only=True)
        if trainer.fast_dev_run:  # a trial of one batch keeps nothing
            return
        checkpoint, nme = results.best(trainer, run.folder)
        figures = {sweeps.VALUE: nme}
        for tested in trainer.test(
            module, data, ckpt_path=checkpoint, weights_only=True, verbose=False
        ):
            figures |= tested
    results.close(
        run.folder, values, config.varied(cfg), trainer, figures, data.splits["test"].table.paths[0]
    )


if __name__ == "__main__":
    train()
