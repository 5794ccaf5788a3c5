"""Every method that ships, on the embedded benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.pipeline.whole import run_to_scores
from knowundo.recipes.presets import presets
from knowundo.recipes.reading import load_recipe
from knowundo.runs.run import Run


@pytest.mark.slow
def test_every_preset_is_trained_and_scored(tmp_path: Path) -> None:
    recipe, given = load_recipe("field-quick", [])
    run = Run(recipe, tmp_path / "run", given=given)
    results, failed = run_to_scores(run)
    planned = {plan.name for plan in recipe.unlearn.variants}
    assert planned == set(presets("methods")) - {"meow", "relearn", "undo"}
    assert {variant.name for variant in results.variants} >= planned
    assert set(failed) <= planned  # one that diverged is scored as it was before
    for name in planned:
        row = results.find(name, "token_accuracy", "unlearn", "val")
        assert row is not None, name
        assert row.value is not None, name
