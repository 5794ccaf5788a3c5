"""The SLURM engine: each run is a job of submitit, with the same recipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from knowundo.errors import BadInput, first_line
from knowundo.studies.tasks import Outcome, Resources, Task, run_task

# Seconds between two questions to the scheduler; folder of its scripts and logs in the study's.
_EVERY, FOLDER = 2.0, "slurm"


def executor(folder: str, resources: Resources, cluster: str | None = None) -> Any:
    """submitit's executor, with what each job needs.

    Args:
        folder: Of scripts and logs.
        resources: Of each job.
        cluster: `local` runs jobs as processes here, for tests. If `None`, SLURM.

    Raises:
        BadInput: submitit is not installed, or there is no SLURM here.
    """
    try:
        import submitit
    except ImportError:
        raise BadInput("--engine slurm: pip install 'knowundo[slurm]'") from None
    try:
        made = submitit.AutoExecutor(folder=folder, cluster=cluster or "slurm")
    except RuntimeError as error:
        raise BadInput(
            f"--engine slurm: {first_line(error)}; run it where `sbatch` is, or take --engine local"
        ) from None
    made.update_parameters(timeout_min=int(60 * resources.hours), cpus_per_task=resources.cpus)
    if cluster is None:
        made.update_parameters(slurm_job_name="knowundo")
        if resources.gpus:
            made.update_parameters(gpus_per_node=int(resources.gpus))
        if resources.partition is not None:
            made.update_parameters(slurm_partition=resources.partition)
    return made


def run_on_slurm(
    tasks: Sequence[Task],
    resources: Resources,
    say: Callable[[str], None],
    cluster: str | None = None,
) -> Iterator[Outcome]:
    """Submit a job for each task, and wait for them.

    Raises:
        BadInput: submitit is not installed, or there is no SLURM here.
    """
    if not tasks:
        return
    made = executor(str(tasks[0].folder.parent.parent / FOLDER), resources, cluster)
    jobs = {made.submit(run_task, task): task.name for task in tasks}
    say(f"slurm: {len(jobs)} jobs, the first is {next(iter(jobs)).job_id}")
    while jobs:
        for job in [job for job in jobs if job.done()]:
            yield _outcome(job, jobs.pop(job))
        if jobs:
            time.sleep(_EVERY if cluster is None else 0.1)


def _outcome(job: Any, name: str) -> Outcome:
    import submitit

    try:
        found: Outcome = job.result()
    except (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError) as error:
        return Outcome(name, 1, f"slurm: {first_line(error)}")
    return found
