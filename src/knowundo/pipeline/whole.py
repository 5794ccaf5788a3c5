"""The five stages over one output directory, each reading artifacts and writing one.

    run = Run(recipe, Path("runs/demo"))
    memorize(run); localize(run); unlearn(run); evaluate(run); report(run)

A stage whose artifact was made of the same inputs is skipped, so a run can be interrupted at any
moment and continued by the same call.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from knowundo.distributed.group import from_main
from knowundo.errors import MethodsFailed, unknown
from knowundo.pipeline.evaluation import evaluate
from knowundo.pipeline.localization import localize
from knowundo.pipeline.memorization import memorize
from knowundo.pipeline.reporting import report
from knowundo.pipeline.unlearning import unlearn
from knowundo.reporting.paper.rendering import ENDINGS
from knowundo.results import Results
from knowundo.runs.directory import CHECKPOINTS
from knowundo.runs.run import Run
from knowundo.storage.integrity import unseal
from knowundo.storage.locks import alone

# What each stage leaves in a run's directory, in the order of the pipeline.
_LEFT = {
    "memorize": ("memorized", "retain"),
    "localize": ("regions",),
    "unlearn": ("unlearned",),
    "evaluate": ("scores", "results.json"),
    "report": ("report.html", "figures", *(f"paper-table.{ending}" for ending in ENDINGS.values())),
}


@alone
def restart(run: Run, stage: str) -> list[str]:
    """Remove what a stage and all later ones left, so that they are done again.

    Returns:
        Names of what was removed.

    Raises:
        BadInput: There is no such stage.
    """
    if stage not in _LEFT:
        raise unknown("stage", stage, _LEFT)
    stages = list(_LEFT)
    names = [name for later in stages[stages.index(stage) :] for name in _LEFT[later]]
    return from_main(lambda: _removed(run, names))


def _removed(run: Run, names: Sequence[str]) -> list[str]:
    removed = list[str]()
    for name in names:
        # Its checkpoint too, or the stage would be resumed near its end instead of begun again.
        for path in (run.out / name, run.out / CHECKPOINTS / name):
            if path.exists():
                removed.append(str(path.relative_to(run.out)))
                unseal(run.out, name)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return removed


@alone
def run_to_scores(run: Run) -> tuple[Results, list[str]]:
    """All stages but the report.

    Args:
        run: What is done of it already is skipped.

    Returns:
        The results, and the names of the variants that diverged.
    """
    memorize(run)
    localize(run)
    failed = unlearn(run)
    return evaluate(run), failed


@alone
def run_all(run: Run, *, redact: bool = False) -> Results:
    """All stages in order.

    Args:
        run: What is done of it already is skipped.
        redact: As for `report`.

    Raises:
        MethodsFailed: At the end, if some variants diverged; everything else is complete.
    """
    results, failed = run_to_scores(run)
    report(run, redact=redact)
    if failed:
        raise MethodsFailed(
            f"diverged: {', '.join(failed)}, scored as they were before that; the other variants "
            "are complete"
        )
    return results
