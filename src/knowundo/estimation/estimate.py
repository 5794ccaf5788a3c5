"""estimate(): parameters, steps and memory of a recipe, before any weight is loaded.

The heaviest step of every stage runs on fake tensors, which have shapes and a graph and no memory,
and a trace counts each tensor while it lives. So everything that a loss keeps is counted, also a
loss that a plugin registers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from knowundo.estimation.fake_model import FakeModel, local_base
from knowundo.estimation.schema import Estimate
from knowundo.estimation.stages import estimate_stages, planned_adaptations
from knowundo.estimation.tracer import Tracer
from knowundo.modeling.adapters import Adaptation, adaptation_of
from knowundo.progress import Reporter
from knowundo.recipes.schema import Recipe
from knowundo.runs.base import base_knows, model_options, tokenizer_of
from knowundo.runs.run import Run


def _notes(recipe: Recipe) -> list[str]:
    section, notes = recipe.model, []
    if section.adaptation == "auto" and recipe.memorize.adopt is None and not section.quantization:
        notes.append("adaptation auto: a LoRA if the records fit into it, otherwise all weights")
    if any(v.region != "everything" for v in recipe.unlearn.variants):
        notes.append("regions are not known yet, so each counts as the whole adaptation")
    if recipe.unlearn.variants and recipe.unlearn.stop is None:
        notes.append(
            "a sweep holds one copy of the region more than the variant: its trials stop early"
        )
    if section.attention == "flash_attention_2":
        notes.append("flash_attention_2 is counted as sdpa")
    if section.optimizer == "paged_adamw_32bit":
        notes.append("a paged optimizer's state can leave the GPU; it is counted as if it stayed")
    return notes


def estimate(recipe: Recipe, reporter: Reporter | None = None) -> list[Estimate]:
    """Estimate what a recipe takes, once for each adaptation that it may end with.

        recipe, _ = load_recipe("demo", ["model.base=path/to/model"])
        for one in estimate(recipe):
            print(one.adaptation, one.highest.name, one.highest.peak)

    Args:
        recipe: its base must be on this machine, as a folder or in the hub's cache. Only the
            config and the tokenizer are read, and no weights.
        reporter: tells the user what happens. If `None`, nobody is told.

    Raises:
        BadInput: the base is not on this machine, or does not support what the recipe asks for.
    """
    reporter = reporter or Reporter()
    folder, adopted = local_base(recipe.model.base), recipe.memorize.adopt
    brought = [] if adopted is None or base_knows(recipe) else [Path(adopted)]
    brought = [adapter for adapter in brought if adaptation_of(adapter).kind == "lora"]
    code = recipe.model.trust_remote_code
    tokenizer, _ = tokenizer_of(folder, brought, trust_remote_code=code)
    found = []
    with TemporaryDirectory() as scratch:
        run = Run(recipe, Path(scratch) / "run")
        for adaptation in planned_adaptations(recipe):
            given = model_options(run.recipe)["options"]
            options = replace(given, device="cpu", tokenizer=tokenizer)
            model = FakeModel(folder, adaptation, seed=recipe.seed, options=options)
            found.append(_with_adaptation(run, model, adaptation, reporter))
    return found


def _with_adaptation(
    run: Run, model: FakeModel, adaptation: Adaptation, reporter: Reporter
) -> Estimate:
    """The estimate of one adaptation."""
    section = run.recipe.model
    lora = f"a LoRA of rank {adaptation.rank}"
    quantized = f"{section.quantization}, computed in " if section.quantization else ""
    return Estimate(
        base=section.base,
        adaptation="all weights" if adaptation.kind == "full" else lora,
        dtype=quantized + section.dtype,
        device=section.device,
        parameters=model.total,
        trainable=sum(p.numel() for p in model.parameters().values()),
        stages=estimate_stages(Tracer(run, model, section.device), reporter),
        notes=_notes(run.recipe),
    )
