"""The five stages over one output directory, each reading artifacts and writing one.

    run = Run(recipe, Path("runs/demo"))
    memorize(run); localize(run); unlearn(run); evaluate(run); report(run)

A stage whose artifact was made of the same inputs is skipped, so a run can be interrupted at any
moment and continued by the same call.
"""

from knowundo.pipeline.comparison import compare
from knowundo.pipeline.evaluation import evaluate
from knowundo.pipeline.localization import localize
from knowundo.pipeline.memorization import memorize
from knowundo.pipeline.reporting import paper_report, report
from knowundo.pipeline.unlearning import unlearn
from knowundo.pipeline.whole import restart, run_all

__all__ = [
    "compare",
    "evaluate",
    "localize",
    "memorize",
    "paper_report",
    "report",
    "restart",
    "run_all",
    "unlearn",
]
