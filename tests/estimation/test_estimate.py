"""Estimates of a recipe."""

from __future__ import annotations

from estimation.recipes import settings
from knowundo.estimation.estimate import estimate
from knowundo.recipes.reading import load_recipe


def test_auto_shows_what_it_may_end_with(toy_base: str) -> None:
    sets = settings(toy_base, "model.adaptation=auto", variants=("gradient_ascent",))
    lora, full = estimate(load_recipe(None, sets)[0])
    assert (lora.adaptation, full.adaptation) == ("a LoRA of rank 8", "all weights")
    assert full.trainable == full.parameters > lora.trainable
    assert any("adaptation auto" in note for note in lora.notes)
