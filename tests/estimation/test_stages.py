"""Stages take what their settings say."""

from __future__ import annotations

from pathlib import Path

import pytest

from estimation.recipes import estimated, settings, tracer, write_base
from knowundo.estimation.schema import CUDA_RESERVE, GPU_MEMORY
from knowundo.estimation.stages import (
    estimate_evaluation,
    estimate_localization,
    estimate_memorization,
)
from knowundo.recipes.reading import load_recipe
from knowundo.runs.base import BOTH, TRAIN_VAL
from knowundo.runs.run import Run
from knowundo.scoring.table import fill_a_batch


@pytest.mark.slow
def test_7_billion_parameters_fit_into_24_gib(seven_billion: str) -> None:
    more = ("model.dtype=bfloat16", "model.device=cuda", "memorize.batch_size=4")
    ways = ("model.gradient_checkpointing=true", "model.quantization=nf4")
    asked = tracer(seven_billion, *more, *ways)
    stage = estimate_memorization(asked, "memorize", BOTH)
    assert stage.peak is not None
    assert stage.peak + CUDA_RESERVE < GPU_MEMORY / 3
    memory = stage.memory
    linear = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    floats = 2 * (2 * 32000 * 4096 + 65 * 4096)  # embeddings, head and norms stay bfloat16
    lora = sum(4 * p.numel() for p in asked.model.parameters().values())
    assert memory["weights"] == pytest.approx(0.516 * linear + floats + lora, rel=0.001)
    assert memory["gradients"] == lora
    assert 2 * lora <= memory["optimizer"] <= 3.01 * lora  # the state, and room for a step


@pytest.mark.slow
def test_checkpointing_holds_fewer_activations(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", weights=False, num_hidden_layers=6)
    held = [tracer(base, f"model.gradient_checkpointing={way}") for way in ("false", "true")]
    before, after = (estimate_localization(one) for one in held)
    assert after.memory["activations"] < before.memory["activations"] / 3


def test_steps_are_those_of_the_run(toy_base: str) -> None:
    found = estimated(toy_base, "memorize.epochs=3", "unlearn.lr=auto", "memorize.known=null")
    run = Run(load_recipe(None, settings(toy_base))[0], Path("nothing is written"))
    rows = [r for s in BOTH for r in run.encoded(s, TRAIN_VAL)] + run.encoded("general", "train")
    memorized, localized, ascent = found.stages[:3]
    assert (memorized.count, memorized.at_most) == (3 * -(-len(rows) // 16), False)
    splits = [run.encoded(scope, "train") for scope in BOTH]
    assert localized.count == sum(-(-3 * len(rows) // 32) for rows in splits)
    assert (ascent.count, ascent.at_most) == (5 * 2 * -(-len(splits[0]) // 8), True)


def test_adapters_of_one_forward_are_counted(toy_base: str) -> None:
    """Base, memorized and one variant in a forward that has room for them, beside one alone."""
    more = ("data.subjects=1", "evaluate.generate=[val]")
    one = tracer(toy_base, *more, variants=("gradient_ascent",))
    lora = sum(parameter.nbytes for parameter in one.model.parameters().values())
    rows = one.run.encoded(model=one.model)
    together = min(fill_a_batch(rows, ("val",)), 3)
    assert together > 1
    assert estimate_evaluation(one).memory["copies"] == (1 + together) * lora
    alone = tracer(toy_base, "evaluate.generate=[val]", "data.subjects=40")
    assert fill_a_batch(alone.run.encoded(model=alone.model), ("val",)) == 1
    assert estimate_evaluation(alone).memory["copies"] == lora
