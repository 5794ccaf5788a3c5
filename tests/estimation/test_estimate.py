"""Estimates of a recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from estimation.recipes import settings
from knowundo.errors import BadInput
from knowundo.estimation.estimate import estimate
from knowundo.recipes.reading import load_recipe


def test_auto_shows_what_it_may_end_with(toy_base: str) -> None:
    sets = settings(toy_base, "model.adaptation=auto", variants=("gradient_ascent",))
    lora, full = estimate(load_recipe(None, sets)[0])
    assert (lora.adaptation, full.adaptation) == ("a LoRA of rank 8", "all weights")
    assert full.trainable == full.parameters > lora.trainable
    assert any("adaptation auto" in note for note in lora.notes)


@pytest.mark.parametrize("adaptation", ["lora", "full"])
def test_a_loaded_base_is_estimated_as_its_folder(toy_base: str, adaptation: str) -> None:
    sets = settings(toy_base, f"model.adaptation={adaptation}", variants=("npo",))
    net = AutoModelForCausalLM.from_pretrained(toy_base, dtype=torch.float32)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    tokenizer = AutoTokenizer.from_pretrained(toy_base)
    wanted = estimate(load_recipe(None, sets)[0])
    recipe, _ = load_recipe(None, [*sets, "model.base=elsewhere", "model.dtype=bfloat16"])
    (found,), (named,) = estimate(recipe, model=net, tokenizer=tokenizer), wanted
    assert replace(found, stages=[]) == replace(named, stages=[])
    for one, other in zip(found.stages, named.stages, strict=True):
        assert replace(one, memory={}, peak=0) == replace(other, memory={}, peak=0)
        assert {**one.memory, "peak": one.peak} == pytest.approx(
            {**other.memory, "peak": other.peak}, rel=0.02
        )
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())
    with pytest.raises(BadInput, match="tokenizer: a loaded model needs its own"):
        estimate(recipe, model=net)


def test_a_base_that_knows_the_rows_is_estimated_with_what_is_trained(toy_base: str) -> None:
    """A fresh LoRA, as in an erasure, whose base need not be a folder."""
    sets = settings(
        toy_base, f"memorize.adopt={toy_base}", "model.adaptation=lora", "model.rank=4",
        "memorize.retain_model=false", "unlearn.lr=1e-3", variants=("gradient_ascent",),
    )  # fmt: skip
    (named,) = estimate(load_recipe(None, sets)[0])
    assert named.adaptation == "a LoRA of rank 4"
    net = AutoModelForCausalLM.from_pretrained(toy_base, dtype=torch.float32)
    net.config._name_or_path = "no/folder"
    loaded = estimate(
        load_recipe(None, sets)[0], model=net, tokenizer=AutoTokenizer.from_pretrained(toy_base)
    )
    assert (loaded[0].adaptation, loaded[0].trainable) == (named.adaptation, named.trainable)
