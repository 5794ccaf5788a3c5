"""What a planned guard cannot have: it trains no weights of the model that it stands before."""

from __future__ import annotations

from pathlib import Path

from knowundo.entry import Entry
from knowundo.errors import BadInput
from knowundo.modeling import regions
from knowundo.modeling.guard_files import is_guard
from knowundo.recipes.schema import Plan, Recipe
from knowundo.unlearning.combining import chosen

# Keys of a plan that are about training.
_TRAINING = (
    "lr", "guess", "epochs", "batch_size", "accumulation", "retained", "retain_on",
)  # fmt: skip


def check_folders(recipe: Recipe) -> None:
    """Refuse a folder with a guard where a model by itself is asked for.

    Raises:
        BadInput: Names the key and the folder.
    """
    named = {
        "model.base": (recipe.model.base,),
        "model.merge": (recipe.model.merge,),
        "memorize.adopt": (recipe.memorize.adopt,),
        "evaluate.models": recipe.evaluate.models,
    }
    for key, folders in named.items():
        for folder in folders:
            if folder is not None and is_guard(Path(folder)):
                raise BadInput(
                    f"{key} '{folder}': holds a guard, which would be passed by here; name a model "
                    "without a guard, or score the guard in the run that made it"
                )


def check_guard(recipe: Recipe, plan: Plan, guard: Entry) -> None:
    """Refuse settings of a planned guard that cannot apply to it.

    Raises:
        BadInput: Names the key.
    """
    place = f"variant {plan.name}"
    if (key := _of_changed_weights(recipe, plan)) is not None:
        raise BadInput(
            f"{place}: {plan.method} is a guard and leaves the weights alone; leave out {key}"
        )
    if recipe.evaluate.general_tasks:
        raise BadInput(
            f"{place}: {plan.method} is a guard, and evaluate.general_tasks ask the model itself; "
            "leave out one of the two"
        )
    if guard.trained is None:
        given = [name for name in _TRAINING if getattr(plan, name) != _default(name)]
        if given:
            raise BadInput(f"{place}: {plan.method} trains nothing; leave out {given[0]}")
        return
    if recipe.unlearn.settings(plan)["lr"] == "auto":
        raise BadInput(
            f"{place}: lr auto aims at what an unlearned model predicts, and {plan.method} trains "
            "an assistant; set a rate"
        )
    if recipe.model.adaptation == "full" or recipe.quirks:
        key = "compat" if recipe.quirks else "model.adaptation full"
        raise BadInput(
            f"{place}: {plan.method} trains a second LoRA beside the memorized one, which {key} "
            "does not allow; leave it out"
        )


def _of_changed_weights(recipe: Recipe, plan: Plan) -> str | None:
    """The first key that asks for what only changed weights have; `None` if none does."""
    found = {
        "unlearn.stop": recipe.unlearn.stop is not None,
        "keep_every": bool(recipe.unlearn.keeps(plan)),
        f"region {plan.region}": plan.region != regions.EVERYTHING,
        "gradients": chosen(plan.gradients) is not None,
        "then": bool(plan.then),
    }
    return next((key for key, there in found.items() if there), None)


def _default(name: str) -> object:
    return Plan.model_fields[name].default
