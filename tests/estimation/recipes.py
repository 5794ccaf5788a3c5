"""Recipes of a few variants, and bases without weights, for the tests of estimates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shutil import copy
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from knowundo.estimation.estimate import estimate
from knowundo.estimation.fake_model import FakeModel
from knowundo.estimation.schema import Estimate
from knowundo.estimation.tracer import Tracer
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.base import base_path
from knowundo.recipes.reading import load_recipe
from knowundo.runs.base import model_options
from knowundo.runs.run import Run

VARIANTS = ("gradient_ascent", "ascent_plus_descent", "ascent_plus_kl_divergence")


def settings(base: str, *more: str, variants: tuple[str, ...] = VARIANTS) -> list[str]:
    named = ", ".join(f"{{method: {name}}}" for name in variants)
    return [
        f"model.base={base}",
        "model.adaptation=lora",
        "memorize.accumulation=1",
        "memorize.retain_model=false",
        "unlearn.batch_size=8",
        f"unlearn.variants=[{named}]",
        *more,
    ]


def estimated(base: str, *more: str, variants: tuple[str, ...] = VARIANTS) -> Estimate:
    found = estimate(load_recipe(None, settings(base, *more, variants=variants))[0])
    assert len(found) == 1
    return found[0]


def tracer(base: str, *more: str, variants: tuple[str, ...] = VARIANTS) -> Tracer:
    recipe, _ = load_recipe(None, settings(base, *more, variants=variants))
    run = Run(recipe, Path("nothing is written"))
    section, options = run.recipe.model, model_options(run.recipe)
    lora = Adaptation("lora", section.rank, section.alpha)
    on_cpu = replace(options["options"], device="cpu")
    return Tracer(run, FakeModel(base, lora, seed=options["seed"], options=on_cpu), section.device)


HUNDRED_MILLION = {
    "vocab_size": 32000,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 2048,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 1,
}


def write_base(folder: Path, *, weights: bool, **config: Any) -> str:
    """A Llama's config (and random weights) beside the embedded tokenizer."""
    folder.mkdir(exist_ok=True)
    shape = LlamaConfig(**HUNDRED_MILLION | config)
    if weights:
        torch.manual_seed(0)
        LlamaForCausalLM(shape).save_pretrained(folder)
    else:
        shape.architectures = ["LlamaForCausalLM"]
        shape.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        copy(Path(base_path("embedded")) / name, folder / name)
    return str(folder)
