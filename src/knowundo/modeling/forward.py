"""Forward passes that compute hidden states at answer positions only."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from knowundo.data.batches import Batch, collate
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput, KnowUndoError
from knowundo.modeling.fast import packing
from knowundo.modeling.fast.chunked_logits import full_precision
from knowundo.modeling.fast.oom import in_portions
from knowundo.modeling.fast.prefix_cache import PrefixCache, layers_of
from knowundo.modeling.guard import Guard, guarded_embeddings
from knowundo.modeling.head import Head, live_head
from knowundo.modeling.layer_states import after_layer
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
        guard: Stands between prompts, the model and its logits (`answer_logits`). If `None`, the
            model answers by itself.
    """

    model: Model
    prefix_cache: PrefixCache | None = None
    adapters: int = 1
    guard: Guard | None = None

    @property
    def models(self) -> int:
        """How many models answer: one for each adapter, or the one behind the guard."""
        return self.adapters if self.guard is None else 1

    @property
    def _padded(self) -> bool:
        """Whether rows have to be padded: embeddings are changed row by row."""
        return self.guard is not None and self.guard.changes == "embeddings"

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

    def layer_states(self, batch: Batch, layer: int) -> torch.Tensor:
        """Hidden states after a decoder layer at the positions that predict the answers.

        The layers above it do not run, and nothing stands in for the layers below a region that
        begins above it.

        Args:
            batch: Rows on the model's device.
            layer: Number of the layer, from 0.

        Returns:
            [adapters · answer tokens, hidden], before the final norm.

        Raises:
            BadInput: There is no such layer, or layers are trained, and all of them are above it.
        """
        states = self._in_groups(batch, layer)
        if torch.is_grad_enabled() and not states.requires_grad:
            _check_reached(self.model, layer)
        return states

    def _in_groups(self, batch: Batch, layer: int | None = None) -> torch.Tensor:
        """The same, in as many forwards as it takes."""
        model = self.model
        able = model.capabilities
        equal = (not able.can_pack(batch) or self._padded) and not able.right_padding
        groups = together(model, [len(row.ids) for row in batch.encoded], equal=equal)
        if len(groups) == 1:
            reset(model)
            return self._in_one(batch, layer)
        rows = dict[int, torch.Tensor]()
        for group in groups:
            reset(model)
            part = collate([batch.encoded[n] for n in group], batch.pad).to(model.device)
            states = self._in_one(part, layer).unflatten(0, (self.adapters, -1))
            rows |= zip(group, states.split(part.lengths.tolist(), dim=1), strict=True)
        return torch.cat([rows[number] for number in range(len(batch))], dim=1).flatten(0, 1)

    def _in_one(self, batch: Batch, layer: int | None) -> torch.Tensor:
        """The same of rows that share one forward."""
        model = self.model
        if not model.capabilities.can_pack(batch) or self._padded:
            cells = self._of_each(batch.positions, batch.ids.numel())
            padded = partial(self._all_padded, batch)
            return after_layer(model, layer, padded).flatten(0, 1)[cells]
        if model.drops and model.net.training:
            batch = batch.apart()
        decoder = model.causal_lm().get_decoder()  # type: ignore[operator]

        def packed() -> torch.Tensor:
            return packing.packed_states(decoder, batch, self.adapters)[0][None]

        cache = self.prefix_cache
        cached = cache is not None and cache.reaches(layer) and cache.holds(batch.encoded)
        with cache.standing_in(batch) if cache and cached else nullcontext():
            states = after_layer(model, layer, packed)[0]
        return states[self._of_each(batch.packed.flatten()[batch.positions], len(batch.filled))]

    def _all_padded(self, batch: Batch) -> torch.Tensor:
        """Final hidden states at every position of padded rows."""
        if self.guard is None:
            return all_hidden_states(self.model, batch, self.adapters)
        prompts = [row.prompt for row in batch.encoded]
        with guarded_embeddings(self.model, self.guard, prompts, left=False, cached=False):
            return all_hidden_states(self.model, batch, self.adapters)

    def _of_each(self, places: torch.Tensor, size: int) -> torch.Tensor:
        """Places in a batch of this size, and in its repetition for each further adapter, flat."""
        first = size * torch.arange(self.adapters, device=places.device)
        return (first[:, None] + places).flatten()


def hidden_states(model: Model, batch: Batch) -> torch.Tensor:
    """`Forward.hidden_states` of one adapter and without a prefix cache."""
    return Forward(model).hidden_states(batch)


def _check_reached(model: Model, layer: int | None = None) -> None:
    """Refuse to train what the states do not depend on, as far as autograd knows.

    Args:
        model: The model.
        layer: The decoder layer that the states are of. If `None`, the last.

    Raises:
        BadInput: Layers are trained, and no gradient reaches them.
    """
    module: Any = model.causal_lm()
    layers = module.get_decoder() if model.capabilities.separate_head else module
    if not any(parameter.requires_grad for parameter in layers.parameters()):
        return
    if layer is not None and layer < len(layers_of(model)) - 1:
        raise BadInput(
            f"the loss reads the hidden states after layer {layer}, which do not depend on what "
            "is trained; take a region that has parameters in this layer or below it"
        )
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
    layer: int | None = None,
) -> Iterator[tuple[Encoded, torch.Tensor]]:
    """Hidden states of each row's answer, without gradients, shortest rows first.

    Where memory runs out, a batch is halved.

    Args:
        forward: How they are computed.
        encoded: The rows.
        size: Rows of a batch, divided by the adapters.
        only: Batches without one of these rows are skipped. If `None`, none are.
        layer: The decoder layer after which they are taken. If `None`, the final ones.

    Yields:
        Row and states, [answer tokens, hidden]; of several adapters
        [adapters, answer tokens, hidden].

    Raises:
        KnowUndoError: There is a guard, which hidden states would pass by.
    """
    if forward.guard is not None:
        raise KnowUndoError("a guarded model has no hidden states of its own; read answer_logits")
    return _answer_states(forward, encoded, size, only=only, layer=layer)


def _answer_states(
    forward: Forward,
    encoded: Sequence[Encoded],
    size: int = 64,
    *,
    only: Collection[Encoded] | None = None,
    layer: int | None = None,
) -> Iterator[tuple[Encoded, torch.Tensor]]:
    """`answer_states`, of prompts that a guard has changed already."""
    model, adapters = forward.model, forward.adapters

    def states(rows: Sequence[Encoded]) -> list[tuple[Encoded, torch.Tensor]]:
        if only is not None and not any(row in only for row in rows):
            return []
        batch = collate(rows, model.pad).to(model.device)
        with torch.no_grad():
            if layer is None:
                found = forward.hidden_states(batch)
            else:
                found = forward.layer_states(batch, layer)
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

    The one place through which teacher-forced logits of a guarded model pass.

    Args:
        forward: How hidden states are computed.
        encoded: The rows.
        only: Batches without one of these rows are skipped. If `None`, none are.

    Yields:
        Row and logits, [answer tokens, vocabulary]; of several adapters without a guard
        [adapters, answer tokens, vocabulary].
    """
    head = live_head(forward.model)
    if forward.guard is not None:
        yield from _guarded_logits(forward, forward.guard, head, encoded, only)
        return
    for row, states in answer_states(forward, encoded, only=only):
        with torch.no_grad():
            logits = full_precision(head(states))
        yield row, logits  # outside, or whoever reads two streams at once stays without gradients


def _guarded_logits(
    forward: Forward,
    guard: Guard,
    head: Head,
    encoded: Sequence[Encoded],
    only: Collection[Encoded] | None,
) -> Iterator[tuple[Encoded, torch.Tensor]]:
    """`answer_logits` of the rows as the guard has them asked."""
    own = {guard.row(row): row for row in encoded}
    wanted = None if only is None else {made for made, row in own.items() if row in only}
    for made, states in _answer_states(forward, list(own), only=wanted):
        row = own[made]
        with torch.no_grad():
            each = states if forward.adapters > 1 else states[None]
            logits = guard.logits(row.prompt, *(full_precision(head(one)) for one in each))
        yield row, logits
