"""The local engine: so many processes at a time on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from knowundo.studies.tasks import Outcome, Resources, Task, run_task


def run_local(
    tasks: Sequence[Task], resources: Resources, say: Callable[[str], None]
) -> Iterator[Outcome]:
    """Run tasks here, `resources.jobs` at a time."""
    del say
    pool = ThreadPoolExecutor(max_workers=resources.jobs)
    try:
        for future in as_completed([pool.submit(run_task, task) for task in tasks]):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
