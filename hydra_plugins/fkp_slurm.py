"""Launch a sweep's jobs on a SLURM cluster with submitit; Hydra looks for launchers here."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

GRACE = 300  # seconds
log = logging.getLogger(__name__)

try:
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
except ImportError:  # an optional dependency: without it, this module offers no launcher
    pass
else:

    class Slurm(SlurmLauncher):
        """Launch jobs on SLURM, and wait for all of them even if one is lost.

        submitit raises an error for a job that was cancelled, killed, or ran out of memory or time,
        and Hydra's launcher would end while others still run. Here its value is NaN, and the log
        says what happened.
        """

        def launch(
            self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
        ) -> Sequence[JobReturn]:
            """Submit the jobs as an array and wait for all of them."""
            # Here, as Hydra imports this file for every command.
            from unittest.mock import patch

            from submitit.core.utils import FailedJobError, UncompletedJobError
            from submitit.slurm.slurm import SlurmJob

            wait = SlurmJob.results

            def results(job: Any) -> list[Any]:
                try:
                    return list(wait(job))
                except (FailedJobError, UncompletedJobError):
                    log.error(f"job {job.job_id}: {job.state}; see {job.paths.stderr}")
                    return [JobReturn(status=JobStatus.COMPLETED, _return_value=math.nan)]

            # submitit accepts no subclass of its jobs.
            with patch.object(SlurmJob, "results", results):
                return list(super().launch(job_overrides, initial_job_idx))

        def __call__(self, *args: Any, **kwargs: Any) -> JobReturn:
            """Run one job, on the cluster."""
            try:
                return super().__call__(*args, **kwargs)
            except SystemExit as stop:
                # The training has saved its checkpoint. SLURM sends SIGTERM first; wait for what
                # follows: SIGKILL, or the signal at which submitit queues the job again.
                if stop.code == 128 + signal.SIGTERM:
                    time.sleep(GRACE)
                raise
