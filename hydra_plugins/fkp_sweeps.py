"""Sweep over overrides with `train.py -m`; Hydra looks for sweepers here.

A failed job does not end the sweep, a finished one is not run again, and a report ends it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

# Modules of fkp are imported when they are needed: Hydra imports this file for every command.
if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)


class Grid(BasicSweeper):
    """Run every combination of the values.

    Args:
        max_batch_size: jobs that the launcher gets at once; None for all.
        params: further overrides, key -> values.
    """

    def sweep(self, arguments: list[str]) -> None:
        """Run the jobs that are not finished, and report.

        Raises:
            FkpError: some jobs have failed or were stopped.
        """
        from fkp.runs import sweeps

        overrides = self._parse(arguments)
        jobs = [job for batch in self.split_arguments(overrides, None) for job in batch]
        swept = [one.get_key_element().lstrip("+") for one in overrides if one.is_sweep_override()]
        sweeps.add_jobs(self.folder, swept, jobs)

        for batch in self.split_overrides_to_chunks(jobs, self.max_batch_size):
            self.run(list(batch), swept)
        self.report()

    @property
    def folder(self) -> Path:
        """The folder of the sweep."""
        assert self.config is not None
        return Path(str(self.config.hydra.sweep.dir))

    def run(self, jobs: Sequence[Sequence[str]], swept: Sequence[str]) -> list[float]:
        """Launch the jobs that are not finished.

        Args:
            jobs: the overrides of each.
            swept: the keys in which they differ.

        Returns:
            validation NME of each job; NaN of those that failed.
        """
        from fkp.runs import sweeps

        assert self.launcher is not None
        folders = [self.folder / sweeps.folder_name(job, swept) for job in jobs]
        unfinished = [
            [*job, f"hydra.sweep.subdir={folder.name}"]
            for job, folder in zip(jobs, folders, strict=True)
            if sweeps.validation_nme(folder) is None
        ]
        self.validate_batch_is_legal(unfinished)
        if unfinished:
            try:
                self.launcher.launch(unfinished, initial_job_idx=self.batch_index)
            except Exception as error:  # a process of the launcher, or its cluster, lost a job
                log.error(f"the launcher lost a job: {error}")
        self.batch_index += len(unfinished)

        values = [sweeps.validation_nme(folder) for folder in folders]
        return [math.nan if value is None else value for value in values]

    def report(self) -> None:
        """Report the sweep.

        Raises:
            FkpError: some jobs are not finished.
        """
        # Imported late: it imports torch, for which the jobs would wait and whose memory they need.
        from fkp.runs import report

        report.close(self.folder)

    def _parse(self, arguments: list[str]) -> list[Override]:
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        return parser.parse_overrides([*self._parse_config(), *arguments])


class Folds(Grid):
    """Train each fold of a cross-validation, then the final model on all faces.

    The final model lies in the folder of the sweep. The error of the folds on faces that they were
    not trained on is its estimate. `train.py data.folds=5` takes this sweeper.

    Args:
        max_batch_size: jobs that the launcher gets at once; None for all.
        params: further overrides, key -> values.
    """

    def sweep(self, arguments: list[str]) -> None:
        """Train what is not finished, and report.

        Raises:
            FkpError: some folds or the final model have failed or were stopped; or the folder
                holds something else.
        """
        from fkp.errors import FkpError
        from fkp.runs import cross_validation, sweeps

        overrides = self._parse(arguments)
        jobs = [job for batch in self.split_arguments(overrides, None) for job in batch]
        cross_validation.refuse_others(self.folder, jobs)
        super().sweep(arguments)

        # The final model.
        assert self.launcher is not None
        if sweeps.validation_nme(self.folder) is None:
            final = cross_validation.final_job(jobs[0])
            self.validate_batch_is_legal([final])
            self.launcher.launch([final], initial_job_idx=self.batch_index)
        if sweeps.validation_nme(self.folder) is None:
            reason = sweeps.read_attempts(self.folder).get("error", "")
            raise FkpError(
                f"{self.folder}: the folds are finished, the final model is not ({reason}); "
                "the same command again continues it"
            )
        cross_validation.print_final(self.folder)

    def run(self, jobs: Sequence[Sequence[str]], swept: Sequence[str]) -> list[float]:
        """Launch the jobs that are not finished; one after the other, the first before the rest.

        Raises:
            FkpError: the first job has not begun, for a reason that the others share.
        """
        from fkp.runs import cross_validation, sweeps

        if not isinstance(self.launcher, BasicLauncher):
            return super().run(jobs, swept)
        values = super().run(jobs[:1], swept)
        cross_validation.refuse_mistake(self.folder / sweeps.folder_name(jobs[0], swept))
        return [*values, *super().run(jobs[1:], swept)]


class Stages(Grid):
    """Train the stages that `stages:` lists, one after the other.

    Each starts from the best weights of the one before, in a folder of its own below that of the
    sweep, which gets the last one's. `train.py experiment=…` takes this sweeper.

    Args:
        max_batch_size: not used.
        params: further overrides, key -> values.
    """

    def sweep(self, arguments: list[str]) -> None:
        """Train what is not finished.

        Raises:
            FkpError: a stage has a mistake in its configuration, has failed or was stopped; or the
                folder holds something else.
        """
        from fkp.errors import FkpError
        from fkp.runs import cross_validation, stages, sweeps

        # The command line is the same in all stages.
        if several := [one.input_line for one in self._parse(arguments) if one.is_sweep_override()]:
            raise FkpError(f"{', '.join(map(str, several))}: several values, but stages take one")
        assert self.config is not None and self.launcher is not None
        jobs = stages.jobs(arguments, self.config.stages, self.folder)
        cross_validation.refuse_others(self.folder, list(jobs.values()))
        self._check(jobs)
        stages.begin(self.folder, arguments, jobs)

        for name, job in jobs.items():
            if sweeps.validation_nme(self.folder / name) is None:
                self.launcher.launch([[*job, f"hydra.sweep.subdir={name}"]], self.batch_index)
                stages.require_finished(self.folder / name)
            self.batch_index += 1
        stages.close(self.folder, list(jobs))

    def _check(self, jobs: dict[str, list[str]]) -> None:
        """Check the configurations of all stages before the first one is trained."""
        from omegaconf import open_dict

        from fkp.errors import FkpError
        from fkp.runs import config

        assert self.hydra_context is not None and self.config is not None
        for name, job in jobs.items():
            loader = self.hydra_context.config_loader
            cfg = loader.load_sweep_config(self.config, [*job, f"run_dir={self.folder / name}"])
            with open_dict(cfg):
                del cfg["hydra"]
            try:
                config.check(cfg)
            except FkpError as error:
                raise FkpError(f"{name}: {error}", key="stages") from None


class Optuna(Grid):
    """Let Optuna choose values by the results of earlier trials.

    The study is stored in the sweep's folder: the same command continues it, first with the trials
    that were started but not finished. A key's values may be a list (`0.1,0.2` or `choice(…)`),
    `range(1,9)`, `interval(0.1,0.9)`, `int(interval(1,9))`, or an interval within
    `tag(log, interval(…))`.

    Hydra's own plugin requires Optuna below 3, whose storage fails on today's SQLAlchemy.

    Args:
        n_trials: finished trials, of all commands together.
        n_jobs: simultaneous trials, for launchers that support them.
        direction: minimize or maximize the best validation NME.
        sampler: of Optuna; None for its default, TPE.
        seed: of the default sampler; the number of earlier trials is added to it.
        max_batch_size: not used.
        params: further overrides, key -> values.
    """

    def __init__(
        self,
        n_trials: int = 20,
        n_jobs: int = 1,
        direction: Literal["minimize", "maximize"] = "minimize",
        sampler: Any = None,
        seed: int | None = 0,
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
    ):
        super().__init__(max_batch_size, params)
        self.n_trials, self.n_jobs, self.direction = n_trials, n_jobs, direction
        self.sampler, self.seed = sampler, seed

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until there are enough, and report.

        Raises:
            FkpError: some jobs have failed or were stopped; or Optuna is not installed.
        """
        from fkp.runs import sweeps

        state = _trial_states()

        # What varies, and what does not.
        overrides = self._parse(arguments)
        varied = [one for one in overrides if one.is_sweep_override()]
        fixed = [
            f"{one.get_key_element()}={one.get_value_element_as_str()}"
            for one in overrides
            if not one.is_sweep_override()
        ]
        space = {one.get_key_element(): _distribution(one) for one in varied}
        swept = [key.lstrip("+") for key in space]
        study = self._study()

        # Ask for trials, run them, tell their results.
        left = self.n_trials - len(study.get_trials(states=(state.COMPLETE,)))
        while left > 0:
            trials = [study.ask(space) for _ in range(min(self.n_jobs, left))]
            jobs = [
                [*fixed, *(f"{key}={value}" for key, value in trial.params.items())]
                for trial in trials
            ]
            sweeps.add_jobs(self.folder, swept, jobs)
            for trial, value in zip(trials, self.run(jobs, swept), strict=True):
                failed = math.isnan(value)
                study.tell(trial, None if failed else value, state=state.FAIL if failed else None)
            left -= len(trials)
        self.report()

    def _study(self) -> optuna.Study:
        """Create or continue the study; trials that did not finish come first."""
        import optuna

        state = optuna.trial.TrialState
        self.folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            study_name="fkp",
            storage=f"sqlite:///{self.folder.resolve() / 'study.db'}",
            direction=self.direction,
            load_if_exists=True,
        )
        # With the seed of the previous command, it would try the same values again.
        seed = None if self.seed is None else self.seed + len(study.trials)
        study.sampler = self.sampler or optuna.samplers.TPESampler(seed=seed)

        queued = [trial.params for trial in study.get_trials(states=(state.COMPLETE,))]
        for trial in study.get_trials(states=(state.RUNNING, state.FAIL)):
            if trial.state == state.RUNNING:
                study.tell(trial.number, state=state.FAIL)
            if trial.params and trial.params not in queued:
                study.enqueue_trial(trial.params)
                queued.append(trial.params)
        return study


def _trial_states() -> type[optuna.trial.TrialState]:
    """Import Optuna.

    Raises:
        FkpError: it is not installed.
    """
    from fkp.errors import FkpError

    try:
        from optuna.trial import TrialState
    except ImportError:
        raise FkpError(
            'hydra/sweeper=optuna: Optuna is not installed; pip install -e ".[sweep]"'
        ) from None
    return TrialState


def _distribution(override: Override) -> optuna.distributions.BaseDistribution:
    """Convert the values of an override to Optuna's distribution.

    Raises:
        FkpError: they are neither choices nor a range or an interval.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from fkp.errors import FkpError

    sweep = override.value()
    if isinstance(sweep, ChoiceSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))

    if isinstance(sweep, IntervalSweep):
        low, high, log_scale = sweep.start, sweep.end, "log" in sweep.tags
        assert low is not None and high is not None
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log_scale)
        return FloatDistribution(float(low), float(high), log=log_scale)

    if isinstance(sweep, RangeSweep) and not sweep.shuffle:
        # The end of a range is not among its values.
        start, stop, step = sweep.start, sweep.stop, sweep.step
        assert start is not None and stop is not None
        if all(isinstance(value, int) for value in (start, stop, step)):
            return IntDistribution(int(start), int(stop) - 1, step=int(step))
        return FloatDistribution(float(start), float(stop) - float(step), step=float(step))

    raise FkpError(
        f"{override.input_line}: Optuna takes choices, a range or an interval, not shuffled"
    )
