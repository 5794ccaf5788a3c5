"""The models that a run scores: base, memorized, retain, unlearned ones, and those given to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation, unmerged_reason
from knowundo.modeling.guard_files import is_guard
from knowundo.modeling.model import Model
from knowundo.modeling.variant import ModelVariant
from knowundo.recipes.values import ROLES
from knowundo.runs.base import base_knows, model_options, model_with_adapters
from knowundo.runs.inputs import unlearn_inputs
from knowundo.runs.memory_base import MemoryBase
from knowundo.storage.artifacts import MANIFEST, kept_name, read_manifest

if TYPE_CHECKING:
    from knowundo.runs.run import Run


def scored_variants(run: Run) -> list[ModelVariant]:
    """Every model to be scored, in the order of the report.

    Raises:
        BadInput: An unlearned variant is older than what it would be made of now.
    """
    given = given_models(run)
    found = [] if base_knows(run.recipe) else [ModelVariant("base", "base")]
    # A run of given models alone has memorized nothing.
    if not given or (run.memorized / MANIFEST).exists():
        found.append(run.start)
        if run.recipe.memorize.retain_model:
            found.append(ModelVariant("retain", "retain", run.retain))
    made, outdated = made_variants(run)
    if outdated:
        raise BadInput(
            f"{run.unlearned(outdated[0])}: made of other inputs than are there now; run "
            f"`knowundo unlearn --out {run.out}` again"
        )
    return found + made + given


def made_variants(run: Run) -> tuple[list[ModelVariant], list[str]]:
    """The unlearned variants that are there, in the order of the recipe.

    Returns:
        Those that are made of what is there now, and the names of the outdated ones.
    """
    made, outdated = list[ModelVariant](), list[str]()
    for plan in run.recipe.unlearn.variants:
        folder = run.unlearned(plan.name)
        if not (folder / MANIFEST).exists():
            continue
        inputs = unlearn_inputs(run, plan)
        if run.done(folder, inputs):
            made += _kept_steps(run, plan.name, inputs)
            made.append(_of_plan(run, plan.name, folder))
        else:
            outdated.append(plan.name)
    return made, outdated


def _of_plan(run: Run, name: str, folder: Path) -> ModelVariant:
    """What a plan made: weights, or a guard before the memorized model."""
    if is_guard(folder):
        return ModelVariant(name, "unlearned", run.start.folder, guard=folder)
    return ModelVariant(name, "unlearned", folder)


def _kept_steps(run: Run, name: str, inputs: Sequence[Any]) -> list[ModelVariant]:
    """What a variant was on the way, as far as that was kept and is still there."""
    found = []
    for step in read_manifest(run.unlearned(name)).get("kept_steps", []):
        kept = kept_name(name, step)
        if run.done(run.unlearned(kept), [*inputs, step]):
            found.append(ModelVariant(kept, "unlearned", run.unlearned(kept)))
    return found


def given_models(run: Run) -> list[ModelVariant]:
    """The adapters and models of `evaluate.models`, named after their folders.

    Two folders may have one name, and a folder the name of a variant: then the parent's name comes
    first, and at last a number.
    """
    planned = (plan.name for plan in run.recipe.unlearn.variants)
    taken = {*ROLES, *(name for name in planned if run.unlearned(name).exists())}
    found = []
    for path in map(Path, run.recipe.evaluate.models):
        folder = path.resolve()
        names = [folder.name, f"{folder.parent.name}_{folder.name}"]
        names += [f"{names[1]}_{number}" for number in range(2, 100)]
        # Names become folders and stand in tables, so nothing but letters, digits and `._-`.
        safe = (re.sub(r"[^\w.-]", "_", name) for name in names)
        name = next(name for name in safe if name not in taken)
        taken.add(name)
        found.append(ModelVariant(name, "given", path))
    return found


def whole_model(run: Run, variant: ModelVariant) -> Model:
    """A given model that is no LoRA for the base: a whole one, or an adapter to be merged.

    Raises:
        BadInput: It cannot be loaded, or has to be merged into a base in memory.
    """
    options = replace(model_options(run.recipe)["options"], scored_only=True, merge=None)
    name, folder, seed = str(variant.folder), Path(str(variant.folder)), run.recipe.seed
    if unmerged_reason(folder) is None:
        return Model(name, Adaptation("full"), seed=seed, options=options)
    if isinstance(run.base, MemoryBase):
        raise BadInput(
            f"evaluate.models '{name}': has to be merged into its base, and the base in memory "
            "stays as it is; merge it (peft: merge_and_unload) and name the merged model"
        )
    # An adapter is one of the base as it is stored; it may bring a tokenizer.
    given = {"seed": seed, "options": replace(options, merge=name)}
    return model_with_adapters(run.recipe.model.base, Adaptation("full"), [folder], given)
