"""A sweep's jobs on a SLURM cluster, by submitit; this folder is where Hydra looks for such."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from hydra.core.utils import JobReturn, JobStatus

GRACE = 300  # seconds
log = logging.getLogger(__name__)

try:
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
except ImportError:  # an extra: without it, Hydra is to find nothing here
    pass
else:

    class Slurm(SlurmLauncher):
        """Hydra's launcher for SLURM, which also waits for the others when a job is lost.

        Of a job that was cancelled, killed or ran out of memory or time, submitit raises an error, and the launcher
        would end while others are at work. Here its value is NaN, and the log says what became of it.
        """

        def launch(
            self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
        ) -> Sequence[JobReturn]:
            """Submit the jobs as an array and wait for all of them."""
            from submitit.core.utils import FailedJobError, UncompletedJobError
            from submitit.slurm.slurm import SlurmJob

            wait = SlurmJob.results

            def results(job: Any) -> list[Any]:
                try:
                    return list(wait(job))
                except (FailedJobError, UncompletedJobError):
                    log.error(
                        f"job {job.job_id}: {job.state}; its files begin with {job.paths.stderr}"
                    )
                    return [JobReturn(status=JobStatus.COMPLETED, _return_value=math.nan)]

            with patch.object(
                SlurmJob, "results", results
            ):  # submitit takes no other class of jobs than its own
                return list(super().launch(job_overrides, initial_job_idx))

        def __call__(self, *args: Any, **kwargs: Any) -> JobReturn:
            """Do one job, on the cluster."""
            try:
                return super().__call__(*args, **kwargs)
            except SystemExit as stop:
                # The training has saved what it has. SLURM asks by SIGTERM before anything else: what follows is the
                # signal at which submitit has the job queued again, or SIGKILL.
                if stop.code == 128 + signal.SIGTERM:
                    time.sleep(GRACE)
                raise
