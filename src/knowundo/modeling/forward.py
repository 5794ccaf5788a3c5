"""Forward passes that compute hidden states at answer positions only."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from knowundo.data.batches import Batch, collate
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.fast import packing
from knowundo.modeling.fast.chunked_logits import full_precision
from knowundo.modeling.fast.oom import in_portions
from knowundo.modeling.fast.prefix_cache import PrefixCache
from knowundo.modeling.head import live_head
from knowundo.modeling.model import Model
from knowundo.modeling.padded import all_hidden_states
from knowundo.modeling.positions import reset, together


@dataclass(frozen=True)
class Forward:
    """How a model computes hidden states.

    Attributes:
        model: The model, with the weights that it has when it is called.
        prefix_cache: Stands in for the frozen layers below what is trained, on rows that it holds.
            If `None`, all layers run.
        adapters: How many LoRAs are batched (multi_adapter.py): each computes all rows, and the
            first adapter's rows come first.
    """

    model: Model
    prefix_cache: PrefixCache | None = None
    adapters: int = 1

    def hidden_states(self, batch: Batch) -> torch.Tensor:
        """Final hidden states at the positions that predict the answers.

        Without padding where the model allows it; rows that would change each other run in separate
        forwards.

        Args:
            batch: Rows on the model's device.

        Returns:
            [adapters · answer tokens, hidden]; logits, [adapters · answer tokens, vocabulary], of a
            model whose head cannot be separated.

        Raises:
            BadInput: Layers are trained, and no gradient reaches them.
        """
        states = self._in_groups(batch)
        if torch.is_grad_enabled() and not states.requires_grad:
            _check_reached(self.model)
        return states

    def _in_groups(self, batch: Batch) -> torch.Tensor:
        """The same, in as many forwards as it takes."""
        model = self.model
        able = model.capabilities
        equal = not able.can_pack(batch) and not able.right_padding
        groups = together(model, [len(row.ids) for row in batch.encoded], equal=equal)
        if len(groups) == 1:
            reset(model)
            return self._in_one(batch)
        rows = dict[int, torch.Tensor]()
        for group in groups:
            reset(model)
            part = collate([batch.encoded[n] for n in group], batch.pad).to(model.device)
            states = self._in_one(part).unflatten(0, (self.adapters, -1))
            rows |= zip(group, states.split(part.lengths.tolist(), dim=1), strict=True)
        return torch.cat([rows[number] for number in range(len(batch))], dim=1).flatten(0, 1)

    def _in_one(self, batch: Batch) -> torch.Tensor:
        """The same of rows that share one forward."""
        model = self.model
        if not model.capabilities.can_pack(batch):
            cells = self._of_each(batch.positions, batch.ids.numel())
            return all_hidden_states(model, batch, self.adapters).flatten(0, 1)[cells]
        if model.drops and model.net.training:
            batch = batch.apart()
        cache = self.prefix_cache
        cached = cache is not None and cache.holds(batch.encoded)
        with cache.standing_in(batch) if cache and cached else nullcontext():
            decoder = model.causal_lm().get_decoder()  # type: ignore[operator]
            states, _ = packing.packed_states(decoder, batch, self.adapters)
        return states[self._of_each(batch.packed.flatten()[batch.positions], len(batch.filled))]

    def _of_each(self, places: torch.Tensor, size: int) -> torch.Tensor:
        """Places in a batch of this size, and in its repetition for each further adapter, flat."""
        first = size * torch.arange(self.adapters, device=places.device)
        return (first[:, None] + places).flatten()


def hidden_states(model: Model, batch: Batch) -> torch.Tensor:
    """`Forward.hidden_states` of one adapter and without a prefix cache."""
    return Forward(model).hidden_states(batch)


def _check_reached(model: Model) -> None:
    """Refuse to train what the states do not depend on, as far as autograd knows.

    Raises:
        BadInput: Layers are trained, and no gradient reaches them.
    """
    module: Any = model.causal_lm()
    layers = module.get_decoder() if model.capabilities.separate_head else module
    if any(parameter.requires_grad for parameter in layers.parameters()):
        raise BadInput(
            f"model.base '{model.base}': no gradient reaches the layers that are to be trained; "
            "train all weights instead (--route full, or model.adaptation=full)"
        )


def answer_states(
    forward: Forward,
    encoded: Sequence[Encoded],
    size: int = 64,
    *,
    only: Collection[Encoded] | None = None,
) -> Iterator[tuple[Encoded, torch.Tensor]]:
    """Hidden states of each row's answer, without gradients, shortest rows first.

    Where memory runs out, a batch is halved.

    Args:
        forward: How they are computed.
        encoded: The rows.
        size: Rows of a batch, divided by the adapters.
        only: Batches without one of these rows are skipped. If `None`, none are.

    Yields:
        Row and states, [answer tokens, hidden]; of several adapters
        [adapters, answer tokens, hidden].
    """
    model, adapters = forward.model, forward.adapters

    def states(rows: Sequence[Encoded]) -> list[tuple[Encoded, torch.Tensor]]:
        if only is not None and not any(row in only for row in rows):
            return []
        batch = collate(rows, model.pad).to(model.device)
        with torch.no_grad():
            found = forward.hidden_states(batch)
        if adapters > 1:
            found = found.unflatten(0, (adapters, -1))
        return list(zip(rows, found.split(batch.lengths.tolist(), dim=-2), strict=True))

    order = sorted(encoded, key=lambda row: len(row.ids))
    at_once = max(1, size // adapters)
    for part in in_portions(order, at_once, states, model.notes.add, "scoring"):
        yield from part


def answer_logits(
    forward: Forward, encoded: Sequence[Encoded], *, only: Collection[Encoded] | None = None
) -> Iterator[tuple[Encoded, torch.Tensor]]:
    """Logits of each row's answer, without gradients, shortest rows first.

    Args:
        forward: How hidden states are computed.
        encoded: The rows.
        only: Batches without one of these rows are skipped. If `None`, none are.

    Yields:
        Row and logits, [answer tokens, vocabulary]; of several adapters
        [adapters, answer tokens, vocabulary].
    """
    head = live_head(forward.model)
    for row, states in answer_states(forward, encoded, only=only):
        with torch.no_grad():
            logits = full_precision(head(states))
        yield row, logits  # outside, or whoever reads two streams at once stays without gradients
