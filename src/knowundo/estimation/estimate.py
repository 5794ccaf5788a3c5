"""estimate(): parameters, steps and memory of a recipe, before any weight is loaded.

The heaviest step of every stage runs on fake tensors, which have shapes and a graph and no memory,
and a ledger watches each tensor come and go. So whatever a loss holds is counted, a plugin's too.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from knowundo.estimation.outline import Outline, local_base
from knowundo.estimation.stages import Estimate, Estimator, planned_adaptations
from knowundo.modeling.adapters import adaptation_of
from knowundo.progress import Reporter
from knowundo.recipes.schema import Recipe
from knowundo.runs.base import base_knows, model_options, tokenizer_of
from knowundo.runs.run import Run


def _notes(recipe: Recipe) -> list[str]:
    section, notes = recipe.model, []
    if section.adaptation == "auto" and recipe.memorize.adopt is None and not section.quantization:
        notes.append("adaptation auto: a LoRA where the records fit into it, else all weights")
    if any(v.region != "everything" for v in recipe.unlearn.variants):
        notes.append("a region is not known yet and counts as the whole adaptation")
    if section.attention == "flash_attention_2":
        notes.append("flash_attention_2 is counted as sdpa")
    if section.optimizer == "paged_adamw_32bit":
        notes.append("a paged optimizer's state can leave the GPU; it is counted as if it stayed")
    return notes


def estimate(recipe: Recipe, reporter: Reporter | None = None) -> list[Estimate]:
    """What a recipe takes; one estimate for each adaptation that it may end with.

    Args:
        recipe: its base must lie here: config.json and tokenizer; weights are not read.
        reporter: tells the user what happens.

    Raises:
        BadInput: the base is not here, or cannot be held as the recipe says.
    """
    section, found = recipe.model, []
    folder, adopted = local_base(section.base), recipe.memorize.adopt
    brought = [] if adopted is None or base_knows(recipe) else [Path(adopted)]
    brought = [adapter for adapter in brought if adaptation_of(adapter).kind == "lora"]
    code = section.trust_remote_code
    tokenizer, _ = tokenizer_of(folder, brought, trust_remote_code=code)
    with TemporaryDirectory() as scratch:
        run = Run(recipe, Path(scratch) / "run")
        for adaptation in planned_adaptations(recipe):
            options = model_options(run.recipe) | {"device": "cpu", "tokenizer": tokenizer}
            model = Outline(folder, adaptation, **options)
            stages = Estimator(run, model, section.device).stages(reporter or Reporter())
            lora = f"a LoRA of rank {adaptation.rank}"
            held = f"{section.quantization}, computed in " if section.quantization else ""
            found.append(
                Estimate(
                    base=section.base,
                    adaptation="all weights" if adaptation.kind == "full" else lora,
                    dtype=held + section.dtype,
                    device=section.device,
                    parameters=model.total,
                    trainable=sum(p.numel() for p in model.parameters().values()),
                    stages=stages,
                    notes=_notes(recipe),
                )
            )
    return found
