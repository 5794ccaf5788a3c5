"""What the forward of a model allows: sequence packing and padding, each tried once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from knowundo.data.batches import Batch, collate
from knowundo.data.encoded import Encoded
from knowundo.data.records import Record
from knowundo.modeling.fast import packing
from knowundo.modeling.fast.oom import ran_out
from knowundo.modeling.head import TRIED, live_head, own_head
from knowundo.modeling.model import Model
from knowundo.modeling.padded import all_hidden_states


def packs(model: Model) -> bool:
    """True if rows can be packed into one sequence in a forward of this model.

    Asked once, and tried on two short rows: a layer that looks back by other means than attention,
    or attention that is not told of the packing, gives other states.
    """
    if model.packs is None:
        able = own_head(model) and packing.prepare(model.causal_lm())
        model.packs = able and _same_as_alone(model, _packed)
    return model.packs


def pads(model: Model) -> bool:
    """True if rows of several lengths can share a batch, padded on the right; tried likewise."""
    if model.pads is None:
        model.pads = _same_as_alone(model, _padded)
        if not model.pads:
            model.notes.add("padding changes this model's states: only equal lengths share it")
    return model.pads


def two_rows(model: Model) -> Batch:
    record = Record(id="", question="", answer="", scope="unlearn", split="train", kind="text")
    rows = [Encoded(record, ids, 1, (False,) * len(ids)) for ids in (TRIED, TRIED[::-2])]
    return collate(rows, model.pad).to(model.device)


def _packed(model: Model, batch: Batch) -> torch.Tensor | None:
    """States of a batch's tokens in its order; `None` where nothing took note of the packing."""
    module: Any = model.causal_lm()
    states, how = packing.packed_states(module.get_decoder(), batch, model.abreast)
    model.window = packing.unseen_window(module.config.get_text_config(), how)
    return states[: len(batch.filled)] if how.used else None


def packable(model: Model, batch: Batch) -> bool:
    """True if these rows can be packed: none is longer than a window that packing cannot see."""
    return packs(model) and batch.ids.shape[1] <= model.window


def _padded(model: Model, batch: Batch) -> torch.Tensor:
    return all_hidden_states(model, batch).flatten(0, 1)[batch.filled]


@torch.no_grad()
def _same_as_alone(model: Model, forward: Callable[[Model, Batch], torch.Tensor | None]) -> bool:
    """True if two rows that share a forward have the logits of each row in one of its own."""
    batch, training = two_rows(model), model.net.training
    model.net.eval()  # no dropout
    try:
        head = live_head(model)
        alone = [_padded(model, collate([r], model.pad).to(model.device)) for r in batch.encoded]
        expected = head(torch.cat(alone))
        try:
            found = forward(model, batch)
        except Exception as error:  # whatever an architecture raises at what it was not made for
            if ran_out(error):
                raise
            return False
        return found is not None and model.alike(head(found), expected)
    finally:
        model.net.train(training)


def shares(model: Model) -> bool:
    """True if training computes what rows begin with alike once: nothing is dropped at random."""
    return packs(model) and not model.drops
