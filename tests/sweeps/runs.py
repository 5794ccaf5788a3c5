"""A small run to sweep."""

from __future__ import annotations

from pathlib import Path

from knowundo.recipes.reading import load_recipe
from knowundo.runs.run import Run

SMALL = (
    "data.subjects=2",
    "memorize.epochs=2",
    "memorize.retain_model=false",
    "localize.draws=1",
    "localize.copies=1",
    "unlearn.lr=2e-3",
    "unlearn.epochs=1",
    "unlearn.stop={evaluations: 3, target: 0.0, floor: 50}",
    "unlearn.variants=[{preset: memflex}, {preset: npo, beta: 0.5}, {preset: gradient_ascent}]",
)


def small(out: Path, *sets: str) -> Run:
    recipe, given = load_recipe("demo", [*SMALL, *sets])
    return Run(recipe, out, given=given)
