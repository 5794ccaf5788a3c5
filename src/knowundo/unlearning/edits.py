"""Weights that are a function of others: what a training begins with, and what its end becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from knowundo.entry import Entry, taken
from knowundo.errors import BadInput
from knowundo.modeling.half import Columns
from knowundo.modeling.model import Model


def editable(model: Model, region: Sequence[str], method: str) -> list[str]:
    """The parameters of a region in which the model's weights are linear.

    A LoRA adds a product B·A to a weight. With A as it is, a difference of B is a difference of
    weights; differences of both are not.

    Args:
        model: The memorized model.
        region: Names of parameters.
        method: Name of the method, for messages.

    Raises:
        BadInput: The weights are linear in none of them, or the LoRA scales columns (DoRA).
    """
    if any("lora_magnitude" in name for name in model.parameters()):
        raise BadInput(f"method {method}: weights are not linear in a DoRA; train a plain LoRA")
    found = [name for name in region if "lora_A" not in name and "lora_embedding_A" not in name]
    if not found:
        raise BadInput(
            f"method {method}: the region has no B matrix of a LoRA; take another region"
        )
    return found


def apply_edit(
    model: Model,
    memorized: Mapping[str, torch.Tensor],
    region: Sequence[str],
    edit: tuple[Entry, Mapping[str, Any]],
) -> None:
    """Replace the trained weights of a region by the method's function of both.

    Args:
        model: The trained model; changed in place.
        memorized: Weights before training, by name.
        region: Names of the parameters that were trained.
        edit: The method, and its hyper-parameters. Without an edit, nothing happens.

    Raises:
        BadInput: A weight is no longer finite.
    """
    (method, bound), own = edit, model.parameters()
    if (function := method.edit_function) is None:
        return
    trained = {name: own[name].detach().cpu() for name in region}
    with torch.no_grad():
        before = {name: memorized[name].cpu() for name in region}
        made = dict(function(before, trained, **taken(function, bound)))
    if not all(bool(value.isfinite().all()) for value in made.values()):
        raise BadInput(f"method {method.name}: a weight is no longer finite; take a smaller lr")
    model.overwrite(made)


def apply_beginning(
    model: Model,
    memorized: Mapping[str, torch.Tensor],
    masks: Mapping[str, torch.Tensor],
    columns: Columns,
    seed: int,
    method: tuple[Entry, Mapping[str, Any]],
) -> None:
    """Replace the weights of a region by those that a method's training begins with.

    Args:
        model: The memorized model; changed in place.
        memorized: Its weights in the region, by name.
        masks: Which weights of a tensor change; of tensors without a mask, all.
        columns: What the method's `prepare` made.
        seed: Of what is drawn.
        method: The method, and its hyper-parameters. Without a beginning, nothing happens.

    Raises:
        BadInput: It would change a LoRA that was put on the model a moment ago: all its B matrices
            are 0, any share of them is 0, and the method would be its loss alone.
    """
    entry, bound = method
    if (function := entry.begin_function) is None:
        return
    made = dict(function(memorized, columns, seed, **taken(function, bound)))
    for name in masks.keys() & made.keys():
        made[name] = torch.where(masks[name], made[name], memorized[name])
    if all(torch.equal(value, memorized[name]) for name, value in made.items()):
        _explain_unchanged(model, entry.name, [memorized[name] for name in made])
    model.overwrite(made)


def _explain_unchanged(model: Model, method: str, weights: Sequence[torch.Tensor]) -> None:
    if not all(bool(value.any()) for value in weights):
        raise BadInput(
            f"method {method}: the LoRA that it would change is new, all its B matrices are 0; "
            "start from the adapter that knows the records, or set model.adaptation=full"
        )
    model.notes.add(f"{method}: no weight was changed before training; see its hyper-parameters")
