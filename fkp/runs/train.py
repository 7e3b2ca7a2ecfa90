"""Train a model, then test its best weights: the function behind `train.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from fkp.errors import FkpError
from fkp.runs import command_line, config, provenance, stages, steps, sweeps
from fkp.runs.start import Start

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from fkp.data.datamodule import FacesDataModule
    from fkp.module import KeypointModule
    from fkp.runs.provenance import Run


@command_line.main("train", stages.arguments, sweeps.job)
def train(cfg: DictConfig) -> None:
    """Fit a network to the training faces, then test its best weights.

    Args:
        cfg: of conf/train.yaml.

    Raises:
        FkpError: a value, file or folder that a user can correct.
    """
    # Begin or resume the run before torch is imported: a mistake is reported at once.
    if cfg.debug not in (None, "augment"):
        raise FkpError(f"debug={cfg.debug}: there is augment")
    stages.refuse_unread(cfg)
    steps.refuse_both(cfg, config.command())
    values = config.plain(cfg)
    run = provenance.begin(Path(cfg.run_dir), values, config.command())

    # Data
    import pytorch_lightning as pl

    from fkp.runs import advice, own_points, results, resume
    from fkp.runs.trainer import build_trainer

    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    data = config.build(cfg.datamodule)
    if cfg.debug:
        return results.debug(data, run.folder)

    # Network, loss and optimizer
    steps.derive_epochs(cfg, data)
    trainer = build_trainer(cfg, **resume.logging(run))
    run.made_of(data.fingerprint)
    advice.show(data, config.option("experiment"))
    module = _build_module(cfg, values, data, run)

    # Training and test
    fit_and_test = own_points.fit_and_test if own_points.fits(module) else _fit_and_test
    metrics = fit_and_test(trainer, module, data, run)
    if metrics:
        unseen = next(
            data.splits[name] for name in ("test", "val", "train") if len(data.splits[name])
        )
        values = config.plain(cfg)  # with the epochs that were derived
        results.close(
            run.folder, values, config.varied(cfg), trainer, metrics, unseen.table.paths[0]
        )


def _build_module(
    cfg: DictConfig, values: dict[str, Any], data: FacesDataModule, run: Run
) -> KeypointModule:
    """Build the module, with the weights that the run is to finetune."""
    from fkp.recipe import Recipe
    from fkp.runs import checkpoints, results

    markup = data.source.markup
    recipe = Recipe.from_config(values, markup)
    module: KeypointModule = config.build(cfg.model, markup=markup, recipe=recipe)
    if weights := Start.of(run.record["start"]).weights:
        checkpoints.start_from(module, weights)
    results.show_network(module)
    return module


def _fit_and_test(
    trainer: pl.Trainer, module: KeypointModule, data: FacesDataModule, run: Run
) -> dict[str, float]:
    """Train, and test the best weights.

    Returns:
        metrics of the test faces, percent, by their logged names; that of the validation faces
        alone if there are no test faces (`data.fold=all`, `data.protocol=all`); none after a trial
        of one batch (`fast_dev_run`), which keeps no checkpoint.
    """
    from fkp.runs import checkpoints, launch, resume

    if trainer.max_epochs == 0:
        what = "trainer.max_epochs=0: only a map is fitted without epochs, experiment=own_points"
        raise FkpError(what, key="trainer.max_epochs")
    with resume.readable_errors(run.last), launch.launch(trainer, run):
        trainer.fit(module, data, ckpt_path=run.checkpoint, weights_only=True)
        if getattr(trainer, "fast_dev_run", False):
            return {}
        checkpoint, nme = checkpoints.keep_best(trainer, run.folder)
        if not len(data.splits["test"]):
            return {sweeps.VALUE: nme} | ({} if data.held_out else {sweeps.TRAINED_ON: 1.0})
        tested = trainer.test(module, data, ckpt_path=checkpoint, weights_only=True, verbose=False)

    metrics: dict[str, float] = {sweeps.VALUE: nme}
    for of_loader in tested:
        metrics |= of_loader
    return metrics
