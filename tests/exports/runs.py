"""Small runs to export models of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from knowundo.pipeline.memorization import memorize
from knowundo.recipes.reading import load_recipe
from knowundo.runs.run import Run

TINY = (
    "data.subjects=2",
    "model.adaptation=lora",
    "memorize.epochs=1",
    "memorize.lr=1e-2",
    "memorize.retain_model=false",
    "localize.draws=0",
    "unlearn.lr=1e-2",
    "unlearn.epochs=1",
    "evaluate.generate=[val]",
    "evaluate.resamples=10",
    "unlearn.variants=[{preset: ascent_plus_descent, name: m}]",
)
TEMPLATE = "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}"


def tiny(base: str, out: Path, *sets: str) -> Run:
    recipe, given = load_recipe("demo", [*TINY, f"model.base={base}", *sets])
    return Run(recipe, out, given=given)


def adopting(done: Run, out: Path, *sets: str) -> Run:
    """A run that takes the LoRA of another over, beside a base that is held otherwise."""
    run = tiny(done.recipe.model.base, out, f"memorize.adopt={done.memorized}", *sets)
    memorize(run)
    return run


def prompts(run: Run) -> list[list[int]]:
    return [list(row.prompt) for row in run.encoded("unlearn", "val")[:3]]


def answers(net: Any, asked: list[list[int]]) -> list[list[int]]:
    """Greedy answers of twelve tokens."""
    options = {"max_new_tokens": 12, "do_sample": False}
    return [net.generate(input_ids=torch.tensor([ids]), **options)[0].tolist() for ids in asked]


def own_answers(run: Run, name: str) -> list[list[int]]:
    run.model.use(next(v for v in run.variants() if v.name == name))
    return answers(run.model.net, prompts(run))
