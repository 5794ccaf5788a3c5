"""The forward of a memorized model behind a guard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from knowundo.errors import BadInput, KnowUndoError
from knowundo.modeling.forward import Forward
from knowundo.modeling.guard_files import ASSISTANT, read_guard
from knowundo.modeling.model import Model
from knowundo.modeling.multi_adapter import batched_adapters, can_batch_adapters
from knowundo.modeling.variant import ModelVariant


@contextmanager
def guarded_forward(model: Model, variant: ModelVariant) -> Iterator[Forward]:
    """Use a variant behind its guard, in forwards without gradients.

    Within it, the model has the variant's weights or, with an assistant, several adapters.

    Args:
        model: Whose weights are swapped.
        variant: Has a guard.

    Yields:
        The forward, for `answer_logits` and generation.

    Raises:
        BadInput: The guard cannot be read, or this model cannot compute its assistant's LoRA in one
            forward with the memorized one.
        KnowUndoError: The variant has no guard.
    """
    if variant.guard is None:
        raise KnowUndoError(f"variant {variant.name} has no guard")
    guard = read_guard(variant.guard, device=model.device, positions=model.positions)
    variants = [replace(variant, guard=None)]
    if guard.adapters > 1:
        variants.append(ModelVariant(ASSISTANT, "given", variant.guard / ASSISTANT))
        if not can_batch_adapters(model, variants):
            raise BadInput(
                f"variant {variant.name}: guard {guard.entry.name} computes two LoRAs in one "
                f"forward, which model.base '{model.base}' with this adaptation does not allow; "
                "choose a method or another guard"
            )
    with batched_adapters(model, variants) as forward:
        yield replace(forward, guard=guard)
