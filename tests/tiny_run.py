"""A run of the toy base that is done in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from knowundo.progress import Reporter
from knowundo.recipes.reading import load_recipe
from knowundo.runs.run import Run

SETS = (
    "data.subjects=2",
    "model.adaptation=lora",
    "model.rank=2",
    "memorize.epochs=1",
    "memorize.retain_model=false",
    "localize.copies=1",
    "localize.draws=1",
    "unlearn.lr=1e-3",
    "unlearn.epochs=1",
    "unlearn.variants=[{method: gradient_ascent}]",
    "evaluate.generate=[val]",
    "evaluate.resamples=10",
)


class Said(Reporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def tiny_run(out: Path, base: str | None = None, *sets: str, **options: Any) -> Run:
    """A run in a directory.

    Args:
        out: Its directory.
        base: A folder. If `None`, the base is among the options.
        sets: Further keys of the recipe.
        options: Of `Run`.
    """
    named = [] if base is None else [f"model.base={base}"]
    recipe, given = load_recipe(None, [*SETS, *named, *sets])
    return Run(recipe, out, given=given, **options)
