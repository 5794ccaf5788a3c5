"""The batched multi-adapter forward: several LoRAs of one shape in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from knowundo.modeling.capabilities import packs, two_rows
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.head import live_head, own_head, trained_head
from knowundo.modeling.model import Model
from knowundo.modeling.variant import ModelVariant


def go_abreast(model: Model, variants: Sequence[ModelVariant]) -> bool:
    """True if one forward of these variants (`Model.all_of`) is that of each.

    Tried with the first and the last on two short rows: a layer that does not see all tokens, or
    sees them in another order, gives other logits. The head is one for all of them.
    """
    model.use(next((v for v in variants if v.folder is not None), variants[0]))
    if not model.all_linear() or not own_head(model) or trained_head(model):
        return False
    batch, head = two_rows(model), live_head(model)
    packs(model)  # what the model allows is tried with one adapter
    with torch.no_grad():
        with model.all_of(variants):
            together = hidden_states(model, batch).chunk(len(variants))
        for number in (0, -1):
            model.use(variants[number])
            if not model.alike(head(together[number]), head(hidden_states(model, batch))):
                return False
    return True
