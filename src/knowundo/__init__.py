"""Remove knowledge from a language model, and show that it is gone while the rest stays.

    from pathlib import Path
    from knowundo import Run, load_recipe, run_all

    recipe, given = load_recipe("demo", ["data.domain=copyright"])
    results = run_all(Run(recipe, Path("runs/copyright"), given=given))

Each stage is a function of its own over a `Run`: memorize, localize, unlearn, evaluate, report.
`sweep` searches the settings of a method, `export` writes an unlearned model, `estimate` tells the
memory that a recipe needs, `certify` writes down the evidence on a model, and `erase(model,
tokenizer, rows)` does all of it for a user's own list. A base that is in memory already takes the
place of a name: `Run(recipe, out, model=net, tokenizer=tokenizer)`.
A method is one file with `@method` above its loss; likewise `@guard`, `@metric`, `@localizer`,
`@benchmark`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from knowundo.version import __version__

if TYPE_CHECKING:
    from knowundo.certificate.certify import certify
    from knowundo.data.records import Record
    from knowundo.erasure.erase import run_request
    from knowundo.erasure.python import erase
    from knowundo.erasure.request import ErasureRequest
    from knowundo.errors import BadInput, KnowUndoError
    from knowundo.estimation.estimate import estimate
    from knowundo.exports.export import export
    from knowundo.exports.guarded import load_guarded
    from knowundo.pipeline import evaluate, localize, memorize, report, run_all, unlearn
    from knowundo.recipes.reading import load_recipe
    from knowundo.recipes.schema import Recipe
    from knowundo.registry import benchmark, guard, localizer, method, metric, scorer
    from knowundo.results import Results, read_results
    from knowundo.runs.run import Run
    from knowundo.sweeps.sweep import sweep

# Where each public name lives; loaded on first use, so that importing the package is cheap.
_HOMES = {
    "certificate.certify": ("certify",),
    "erasure.erase": ("run_request",),
    "erasure.python": ("erase",),
    "erasure.request": ("ErasureRequest",),
    "errors": ("BadInput", "KnowUndoError"),
    "estimation.estimate": ("estimate",),
    "exports.export": ("export",),
    "exports.guarded": ("load_guarded",),
    "pipeline": ("evaluate", "localize", "memorize", "report", "run_all", "unlearn"),
    "recipes.reading": ("load_recipe",),
    "recipes.schema": ("Recipe",),
    "data.records": ("Record",),
    "registry": ("benchmark", "guard", "localizer", "method", "metric", "scorer"),
    "results": ("Results", "read_results"),
    "runs.run": ("Run",),
    "sweeps.sweep": ("sweep",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BadInput",
    "ErasureRequest",
    "KnowUndoError",
    "Recipe",
    "Record",
    "Results",
    "Run",
    "__version__",
    "benchmark",
    "certify",
    "erase",
    "estimate",
    "evaluate",
    "export",
    "guard",
    "load_guarded",
    "load_recipe",
    "localize",
    "localizer",
    "memorize",
    "method",
    "metric",
    "read_results",
    "report",
    "run_all",
    "run_request",
    "scorer",
    "sweep",
    "unlearn",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f"knowundo.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'knowundo' has no attribute '{name}'")
