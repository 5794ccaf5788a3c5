"""The batched multi-adapter forward: several LoRAs of one shape in one pass.

Scoring is bound by reading the base's weights, which a batched forward reads once for all adapters
(S-LoRA, Sheng et al. 2023, arXiv:2311.03285).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from knowundo.modeling.capabilities import short_rows
from knowundo.modeling.fast.lora import all_linear, batched
from knowundo.modeling.forward import Forward, hidden_states
from knowundo.modeling.head import live_head, trained_head
from knowundo.modeling.model import Model
from knowundo.modeling.snapshots import ADAPTER, BEFORE
from knowundo.modeling.variant import ModelVariant


def can_batch_adapters(model: Model, variants: Sequence[ModelVariant]) -> bool:
    """True if one forward of these variants (`batched_adapters`) is that of each.

    Tried with the first and the last on two short rows: a layer that does not see all tokens, or
    sees them in another order, gives other logits. The head must be one for all of them.

    Args:
        model: Is afterwards what it was.
        variants: LoRAs of one shape, or the base.
    """
    if model.adaptation.kind != "lora":
        return False
    with _restored(model):
        model.use(_shaped(variants))
        linear = model.adaptation.is_product and all_linear(model.net)
        if not linear or not model.capabilities.separate_head or trained_head(model):
            return False
        batch, head = short_rows(model), live_head(model)
        with torch.no_grad():
            with batched_adapters(model, variants) as forward:
                together = forward.hidden_states(batch).chunk(len(variants))
            for number in (0, -1):
                model.use(variants[number])
                alone = head(hidden_states(model, batch))
                if not model.same_numbers(head(together[number]), alone):
                    return False
    return True


@contextmanager
def batched_adapters(model: Model, variants: Sequence[ModelVariant]) -> Iterator[Forward]:
    """Use several variants at once, in forwards without gradients.

    Within it, the model has the weights of the last variant, and keeps them afterwards.

    Args:
        model: Whose weights are swapped.
        variants: LoRAs of one shape, or the base; `can_batch_adapters` says whether it works.

    Yields:
        The forward of all of them: the rows of the first come first, and so on.
    """
    model.use(_shaped(variants))
    if len(variants) == 1:  # of all weights, a copy would be a second model
        yield Forward(model)
        return
    copies = []
    for variant in variants:
        model.use(variant)
        copies.append(model.snapshot(ADAPTER, model.parameters()))
    states = [copy.tensors for copy in copies]
    with batched(model.net, states):
        # They are stacked on the device now. Both lists go: `batched` refers to the second.
        copies.clear()
        states.clear()
        yield Forward(model, adapters=len(variants))


def _shaped(variants: Sequence[ModelVariant]) -> ModelVariant:
    """The variant that says what shape the LoRA has: the base fits any."""
    return next((v for v in variants if v.folder is not None), variants[0])


@contextmanager
def _restored(model: Model) -> Iterator[None]:
    """Within it, variants may be used; afterwards the model is what it was before."""
    adaptation, initial = model.adaptation, model.initial
    before = model.snapshot(BEFORE, model.parameters())
    try:
        yield
    finally:
        if model.adaptation != adaptation:
            model.adapt(adaptation)
            model.initial = initial
        model.overwrite(before.tensors)
