"""What the forward of a model allows, found by trials on a few short rows.

transformers names no such abilities, and a name would not hold for code of a model's own: a layer
that reads earlier tokens by other means than attention mixes packed rows, a mask that is ignored
lets padding be seen. So each ability is tried against rows that have a forward of their own, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from knowundo.data.batches import Batch, collate
from knowundo.data.encoded import Encoded
from knowundo.data.records import Record
from knowundo.errors import BadInput
from knowundo.modeling.continuation import next_logits
from knowundo.modeling.fast import packing
from knowundo.modeling.fast.lora import one_adapter
from knowundo.modeling.fast.oom import attempt
from knowundo.modeling.head import live_head, separated_head
from knowundo.modeling.padded import all_hidden_states
from knowundo.modeling.positions import scaled_embeddings

if TYPE_CHECKING:
    from knowundo.modeling.model import Model

# Ids of the row on which a model is tried; every vocabulary has so few.
TRIED = tuple(range(1, 13))


@dataclass(frozen=True, eq=False)
class Capabilities:
    """What the forward of a model allows.

    Each is tried when it is first asked for, in evaluation mode and with one adapter, and holds
    until an adapter of another shape is put on. Trials change nothing but the notes.
    """

    model: Model

    @cached_property
    def scaled_positions(self) -> tuple[tuple[Any, str, str], ...]:
        """Rotary embeddings that depend on a batch's longest row (positions.py)."""
        return scaled_embeddings(self.model.causal_lm())

    @cached_property
    def separate_head(self) -> bool:
        """True if logits can be computed from the final hidden states alone (head.py)."""
        with _trial(self.model):
            return _same_logits(self.model)

    @cached_property
    def packing_window(self) -> float:
        """Tokens of the longest row that can be packed; infinity if any, 0 if none can."""
        model = self.model
        if not self.separate_head or not packing.prepare(model.causal_lm()):
            return 0
        windows = [0.0]

        def packed(model: Model, batch: Batch) -> torch.Tensor | None:
            module: Any = model.causal_lm()
            states, how = packing.packed_states(module.get_decoder(), batch)
            windows[0] = packing.unseen_window(module.config.get_text_config(), how)
            return states[: len(batch.filled)] if how.used else None

        return windows[0] if _same_as_alone(model, packed) else 0

    @property
    def packing(self) -> bool:
        """True if rows can be packed into one sequence in a forward of this model."""
        return self.packing_window > 0

    def can_pack(self, batch: Batch) -> bool:
        """True if these rows can be packed: none is longer than a window packing cannot see."""
        return batch.ids.shape[1] <= self.packing_window

    @property
    def shared_prefixes(self) -> bool:
        """True if training computes once what rows have in common at their beginning.

        With dropout each row needs a draw of its own.
        """
        return self.packing and not self.model.drops

    @cached_property
    def right_padding(self) -> bool:
        """True if rows of several lengths can share a batch, padded on the right."""
        able = _same_as_alone(self.model, _padded)
        if not able:
            self.model.notes.add("padding changes this model's states: only equal lengths share it")
        return able

    @cached_property
    def left_padding(self) -> bool:
        """True if prompts of several lengths can share a batch, padded on the left.

        What ignores the mask continues them otherwise.

        Raises:
            BadInput: transformers cannot generate with this architecture.
        """
        model, prompts = self.model, [TRIED, TRIED[::-2]]
        with _trial(model):
            alone = torch.cat([next_logits(model, [prompt]) for prompt in prompts])
            try:
                able = model.same_numbers(next_logits(model, prompts), alone)
            except BadInput:  # of both, though of neither alone
                able = False
        if not able:
            model.notes.add("padding on the left changes answers: only equal lengths share it")
        return able


def short_rows(model: Model) -> Batch:
    """Two rows of unequal length, on the model's device, for trials."""
    record = Record(id="", question="", answer="", scope="unlearn", split="train", kind="text")
    rows = [Encoded(record, ids, 1, (False,) * len(ids)) for ids in (TRIED, TRIED[::-2])]
    return collate(rows, model.pad).to(model.device)


@contextmanager
def _trial(model: Model) -> Iterator[None]:
    """Within it, no gradients, no dropout, and one adapter where several are batched."""
    training = model.net.training
    model.net.eval()
    try:
        with torch.no_grad(), one_adapter(model.net):
            yield
    finally:
        model.net.train(training)


def _same_logits(model: Model) -> bool:
    """True if the separated head gives the logits of the whole model on a short row."""
    module: Any = model.causal_lm()
    ids = torch.tensor([TRIED], device=model.device)
    logits = module(input_ids=ids, use_cache=False).logits[0]
    found = logits
    with attempt() as tried:
        states = module.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0]
        found = separated_head(model, copied=False)(states)
    if tried.error is not None:
        model.notes.add(f"whole forwards: the head cannot be taken apart ({tried.error})")
        return False
    same = found.shape == logits.shape and model.same_numbers(found, logits)
    if not same:
        model.notes.add("whole forwards: logits are not those of the final hidden states")
    return same


def _padded(model: Model, batch: Batch) -> torch.Tensor:
    return all_hidden_states(model, batch).flatten(0, 1)[batch.filled]


def _same_as_alone(model: Model, forward: Callable[[Model, Batch], torch.Tensor | None]) -> bool:
    """True if two rows that share a forward have the logits of each row in one of its own.

    Args:
        model: Is tried.
        forward: Returns the states of a batch's tokens in its order, or `None` where nothing took
            note that rows share it.
    """
    head = live_head(model)
    with _trial(model):
        batch, found = short_rows(model), None
        alone = [_padded(model, collate([r], model.pad).to(model.device)) for r in batch.encoded]
        expected = head(torch.cat(alone))
        with attempt() as tried:
            found = forward(model, batch)
        if tried.error is not None or found is None:
            return False
        return model.same_numbers(head(found), expected)
