"""The base of a recipe in memory: how it is loaded, and with which tokenizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation, adaptation_of
from knowundo.modeling.base import own_tokenizer, same_base
from knowundo.modeling.dtype import choose
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.progress import Reporter
from knowundo.recipes.schema import Recipe
from knowundo.runs.recipe_file import read_recipe_file
from knowundo.scoring.teacher_forcing import teacher_forced

# What a parameter holds after some dozen exposures, in bits. Allen-Zhu and Li 2024
# (arXiv:2404.05405) find 2 after 1,000 exposures and 1 after 100.
BITS_PER_PARAMETER = 0.5


def base_knows(recipe: Recipe) -> bool:
    """True if the base's own weights know the records: nothing is put on it to begin with."""
    adopted = recipe.memorize.adopt
    return adopted is not None and same_base(adopted, recipe.model.base)


def say_remote_code(recipe: Recipe, reporter: Reporter) -> None:
    """Tell plainly where somebody else's code is about to run."""
    if recipe.model.trust_remote_code:
        reporter.say(
            f"model.trust_remote_code is on: Python code from '{recipe.model.base}' runs on this "
            "machine, with all rights of this user"
        )


def settle_dtype(recipe: Recipe, out: Path, reporter: Reporter) -> Recipe:
    """The recipe with a dtype, where it leaves that to the machine: measured now, or as `out` says.

    A run that was begun goes on as it began.
    """
    section, file = recipe.model, out / "recipe.yaml"
    if section.dtype != "auto":
        return recipe
    if file.is_file():
        dtype = read_recipe_file(file)["effective"]["model"]["dtype"]
    else:
        code = section.trust_remote_code
        dtype, why = choose(section.base, section.device, trust_remote_code=code)
        reporter.say(f"model.dtype auto: {dtype}; {why}")
    return recipe.model_copy(update={"model": section.model_copy(update={"dtype": dtype})})


def model_options(recipe: Recipe) -> dict[str, Any]:
    """Arguments of `Model` that say how a recipe's base is loaded and held."""
    names = (
        "device", "dtype", "trust_remote_code",
        "quantization", "attention", "gradient_checkpointing",
    )  # fmt: skip
    loading = LoadingOptions(**{name: getattr(recipe.model, name) for name in names})
    return {"seed": recipe.seed, "options": loading}


def adopting_model(recipe: Recipe) -> Model:
    """The base of a recipe that takes over a model which knows the records.

    Beside a base that knows them itself there is a fresh LoRA, unless all weights are asked for.

    Raises:
        BadInput: what is taken over is not what the recipe would train.
    """
    section, adopted = recipe.model, str(recipe.memorize.adopt)
    if base_knows(recipe):
        kind = "lora" if section.adaptation == "auto" else section.adaptation
        known = Adaptation(kind, section.rank, section.alpha)
    else:
        known = adaptation_of(Path(adopted))
    if section.adaptation not in ("auto", known.kind):
        raise BadInput(
            f"memorize.adopt '{adopted}': not what model.adaptation '{section.adaptation}' "
            f"trains; set it to {known.kind} or auto"
        )
    adaptation = replace(known, dropout=section.dropout)
    options = model_options(recipe)
    if known.kind == "lora" and not base_knows(recipe):
        return model_with_adapters(section.base, adaptation, [Path(adopted)], options)
    return Model(section.base, adaptation, **options)


def tokenizer_of(
    base: str, adapters: Sequence[Path], *, trust_remote_code: bool = False
) -> tuple[str | None, str | None]:
    """The folder whose tokenizer is used where a base has adapters, and what is to be said of it.

    Trainers save it beside the adapter: with tokens that they added, or a chat template of their
    own. If adapters bring different ones, the base's is taken.

    Args:
        base: As for `Model`.
        adapters: Folders of adapters.
        trust_remote_code: As for `Model`.

    Returns:
        Twice `None` where the base's own is used and no adapter brings another.
    """
    found = {folder: own_tokenizer(folder, base, trust_remote_code) for folder in adapters}
    taken = next((folder for folder, kind in found.items() if kind is not None), None)
    if taken is None:
        return None, None
    if len(set(found.values())) == 1:
        return str(taken), f"{taken}: its own tokenizer and chat template are used, not the base's"
    return None, (
        f"{taken}: has a tokenizer or chat template of its own, and other adapters have others; "
        "the base's is taken for all of them: score them one at a time to use their own"
    )


def model_with_adapters(
    base: str, adaptation: Adaptation, adapters: Sequence[Path], options: Mapping[str, Any]
) -> Model:
    """A base with the tokenizer that its adapters were trained with: see `tokenizer_of`.

    Args:
        base: As for `Model`.
        adaptation: As for `Model`.
        adapters: Folders of adapters.
        options: Further arguments of `Model`.
    """
    loading: LoadingOptions = options.get("options") or LoadingOptions()
    code = loading.trust_remote_code
    tokenizer, note = tokenizer_of(base, adapters, trust_remote_code=code)
    own = {"options": replace(loading, tokenizer=tokenizer)}
    model = Model(base, adaptation, **{**options, **own})
    if note is not None:
        model.notes.add_once(note)
    return model


def needed_bits(model: Model, encoded: Sequence[Encoded]) -> float:
    """Information in the answers that the model does not know, in bits."""
    rows = teacher_forced(model, encoded).values()
    each = (math.inf if row["mean_nll"] is None else row["mean_nll"] for row in rows)
    return sum(nll * (row["tokens"] + 1) for nll, row in zip(each, rows, strict=True)) / math.log(2)
