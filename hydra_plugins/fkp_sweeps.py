"""What `train.py -m` walks through; this folder is where Hydra looks for such.

A job that fails ends nothing, one that is finished is not done again, and at the end stands a report.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)


class Grid(BasicSweeper):
    """Every combination of the values.

    Args:
        max_batch_size: jobs that are given to the launcher at once; None for all.
        params: further overrides, key -> values.
    """

    def sweep(self, arguments: list[str]) -> None:
        """Do the jobs that are not finished, and report.

        Raises:
            FkpError: some have failed, or were stopped.
        """
        from fkp.runs import sweeps

        overrides = self._parsed(arguments)
        jobs = [job for batch in self.split_arguments(overrides, None) for job in batch]
        swept = [one.get_key_element().lstrip("+") for one in overrides if one.is_sweep_override()]
        sweeps.add_jobs(self.folder, swept, jobs)
        for batch in self.split_overrides_to_chunks(jobs, self.max_batch_size):
            self.values(list(batch), swept)
        self.report()

    def report(self) -> None:
        """Say what the sweep has come to; FkpError if jobs are not finished."""
        from fkp.runs import (
            report,  # not before: it brings torch, for which jobs would wait, and whose memory they need
        )

        report.close(self.folder)

    @property
    def folder(self) -> Path:
        """Of the sweep."""
        assert self.config is not None
        return Path(str(self.config.hydra.sweep.dir))

    def _parsed(self, arguments: list[str]) -> list[Override]:
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        return parser.parse_overrides([*self._parse_config(), *arguments])

    def values(self, jobs: Sequence[Sequence[str]], swept: Sequence[str]) -> list[float]:
        """What jobs come to: those that are not finished are launched.

        Args:
            jobs: the overrides of each.
            swept: the keys in which they differ.

        Returns:
            their figures; NaN of those that failed.
        """
        from fkp.runs import sweeps

        assert self.launcher is not None
        folders = [self.folder / sweeps.folder_name(job, swept) for job in jobs]
        left = [
            [*job, f"hydra.sweep.subdir={folder.name}"]
            for job, folder in zip(jobs, folders, strict=True)
        ]
        left = [
            job for job, folder in zip(left, folders, strict=True) if sweeps.validation_nme(folder) is None
        ]
        self.validate_batch_is_legal(left)
        if left:
            try:
                self.launcher.launch(left, initial_job_idx=self.batch_index)
            except Exception as error:  # of a launcher whose process, or whose cluster, lost a job
                log.error(f"the launcher lost a job: {error}")
        self.batch_index += len(left)
        return [
            math.nan if (value := sweeps.validation_nme(folder)) is None else value for folder in folders
        ]


class Optuna(Grid):
    """Values that Optuna chooses, one after the other, by what the ones before have come to.

    The study lies in the sweep's folder: the same command goes on with it, and first with the trials that it had begun.
    Of a key's values it takes lists (`0.1,0.2` or `choice(…)`) as they are, `range(1,9)`, `interval(0.1,0.9)`,
    `int(interval(1,9))`, and of both `tag(log, interval(…))`.

    Hydra's own plugin for Optuna wants an Optuna below 3, whose storage fails on today's SQLAlchemy; hence this one.

    Args:
        n_trials: finished ones, of all commands together.
        n_jobs: trials at a time, for launchers that can.
        direction: minimize or maximize the best validation NME.
        sampler: of Optuna; None for its default, TPE.
        seed: of the default; a study that goes on counts its trials to it.
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
        self.n_trials, self.n_jobs, self.direction, self.sampler, self.seed = (
            n_trials,
            n_jobs,
            direction,
            sampler,
            seed,
        )

    def sweep(self, arguments: list[str]) -> None:
        """Do trials until there are enough, and report.

        Raises:
            FkpError: some have failed, or were stopped; or Optuna is not installed.
        """
        from fkp.errors import FkpError
        from fkp.runs import sweeps

        try:
            import optuna
        except ImportError:
            raise FkpError(
                'hydra/sweeper=optuna: Optuna is not installed; pip install -e ".[sweep]"'
            ) from None
        overrides = self._parsed(arguments)
        space = {
            one.get_key_element(): _distribution(one)
            for one in overrides
            if one.is_sweep_override()
        }
        fixed = [
            f"{one.get_key_element()}={one.get_value_element_as_str()}"
            for one in overrides
            if not one.is_sweep_override()
        ]
        swept = [key.lstrip("+") for key in space]
        self.folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            study_name="fkp",
            storage=f"sqlite:///{self.folder.resolve() / 'study.db'}",
            direction=self.direction,
            load_if_exists=True,
        )
        # Other numbers than the command before has drawn: it would try the same values again.
        seed = None if self.seed is None else self.seed + len(study.trials)
        study.sampler = self.sampler or optuna.samplers.TPESampler(seed=seed)
        state = optuna.trial.TrialState
        done = [trial.params for trial in study.get_trials(states=(state.COMPLETE,))]
        for begun in study.get_trials(states=(state.RUNNING, state.FAIL)):
            if begun.state == state.RUNNING:
                study.tell(begun.number, state=state.FAIL)
            if begun.params and begun.params not in done:
                study.enqueue_trial(begun.params)
                done.append(begun.params)
        left = self.n_trials - len(study.get_trials(states=(state.COMPLETE,)))
        while left > 0:
            trials = [study.ask(space) for _ in range(min(self.n_jobs, left))]
            jobs = [
                [*fixed, *(f"{key}={value}" for key, value in trial.params.items())]
                for trial in trials
            ]
            sweeps.add_jobs(self.folder, swept, jobs)
            for trial, value in zip(trials, self.values(jobs, swept), strict=True):
                failed = math.isnan(value)
                study.tell(trial, None if failed else value, state=state.FAIL if failed else None)
            left -= len(trials)
        self.report()


def _distribution(override: Override) -> optuna.distributions.BaseDistribution:
    """What Optuna draws a key's values from."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from fkp.errors import FkpError

    sweep = override.value()
    tags: set[str] = getattr(sweep, "tags", set())
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None and sweep.end is not None
        if isinstance(sweep.start, int) and isinstance(sweep.end, int):
            return IntDistribution(sweep.start, sweep.end, log="log" in tags)
        return FloatDistribution(float(sweep.start), float(sweep.end), log="log" in tags)
    if isinstance(sweep, RangeSweep) and not sweep.shuffle:
        assert sweep.start is not None and sweep.stop is not None
        if all(isinstance(part, int) for part in (sweep.start, sweep.stop, sweep.step)):
            return IntDistribution(int(sweep.start), int(sweep.stop) - 1, step=int(sweep.step))
        last = float(sweep.stop) - float(sweep.step)
        return FloatDistribution(float(sweep.start), last, step=float(sweep.step))
    if isinstance(sweep, ChoiceSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    raise FkpError(f"{override.input_line}: Optuna is given choices, a range or an interval")
