"""estimate(): parameters, steps and memory of a recipe, before any weight is loaded.

The heaviest step of every stage runs on fake tensors, which have shapes and a graph and no memory,
and a trace counts each tensor while it lives. So everything that a loss keeps is counted, also a
loss that a plugin registers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from knowundo.errors import BadInput
from knowundo.estimation.fake_model import FakeModel, fake_base, local_base
from knowundo.estimation.schema import Estimate
from knowundo.estimation.stages import estimate_stages, planned_adaptations
from knowundo.estimation.tracer import Tracer
from knowundo.modeling.adapters import Adaptation, adaptation_of
from knowundo.progress import Reporter
from knowundo.recipes.schema import Recipe
from knowundo.runs.base import base_knows, model_options, settle_merge, tokenizer_of
from knowundo.runs.memory_base import loaded_section
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


def estimate(
    recipe: Recipe,
    reporter: Reporter | None = None,
    *,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> list[Estimate]:
    """Estimate what a recipe takes, once for each adaptation that it may end with.

        recipe, _ = load_recipe("demo", ["model.base=path/to/model"])
        for one in estimate(recipe):
            print(one.adaptation, one.highest.name, one.highest.peak)

    Args:
        recipe: its base must be on this machine, as a folder or in the hub's cache. Only the
            config and the tokenizer are read, and no weights.
        reporter: tells the user what happens. If `None`, nobody is told.
        model: the base, if it is in memory already; its name, device and dtype are those of the
            recipe then. It is not changed, and no weight of it is copied. A recipe that takes over
            what the base knows (`memorize.adopt` is `model.base`) takes over this one.
        tokenizer: the tokenizer of `model`.

    Raises:
        BadInput: the base is not on this machine, or does not support what the recipe asks for.
    """
    reporter, recipe = reporter or Reporter(), settle_merge(recipe)
    if model is not None:
        recipe = _of_loaded(recipe, model)
        if tokenizer is None:
            raise BadInput("tokenizer: a loaded model needs its own; hand it in beside the model")
    folder = None if model is not None else local_base(recipe.model.base)
    found = []
    with TemporaryDirectory() as scratch:
        run = Run(recipe, Path(scratch) / "run")
        for adaptation in planned_adaptations(recipe):
            options = replace(model_options(run.recipe)["options"], device="cpu", merge=None)
            if model is not None and tokenizer is not None:
                fake = FakeModel(fake_base(model, tokenizer, options), adaptation, seed=recipe.seed)
            else:
                assert folder is not None
                options = replace(options, tokenizer=_own_tokenizer(recipe, folder))
                fake = FakeModel(folder, adaptation, seed=recipe.seed, options=options)
            found.append(_with_adaptation(run, fake, adaptation, reporter))
    return found


def _of_loaded(recipe: Recipe, model: PreTrainedModel) -> Recipe:
    """The recipe with the name, device and dtype of a loaded base."""
    own = loaded_section(model)
    memorize = recipe.memorize
    if base_knows(recipe):
        memorize = memorize.model_copy(update={"adopt": own["base"]})
    section = recipe.model.model_copy(update=own)
    return recipe.model_copy(update={"model": section, "memorize": memorize})


def _own_tokenizer(recipe: Recipe, folder: str) -> str | None:
    """The folder of the tokenizer that an adapter brings, or `None` for the base's own."""
    adopted = recipe.memorize.adopt
    brought = [] if adopted is None or base_knows(recipe) else [Path(adopted)]
    brought = [adapter for adapter in brought if adaptation_of(adapter).kind == "lora"]
    if recipe.model.merge is not None:
        brought.append(Path(recipe.model.merge))
    code = recipe.model.trust_remote_code
    return tokenizer_of(folder, brought, trust_remote_code=code)[0]


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
