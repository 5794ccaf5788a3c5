"""What the layers below a region make of each row: the same at every step, so computed once.

No gradient reaches below the lowest layer that is trained, and nothing below it moves: after the
first time, a row's forward begins there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from knowundo.data.batches import Batch, collate
from knowundo.data.encoded import Encoded
from knowundo.modeling.fast.microbatches import micro_batches
from knowundo.modeling.fast.packing import packed_states
from knowundo.modeling.positions import unscaled
from knowundo.modeling.regions import place

if TYPE_CHECKING:
    from knowundo.modeling.model import Model

# Bytes of states that are held at most.
MOST_BYTES = 2**30


def layers_of(model: Model) -> Sequence[Any]:
    """The decoder's layers in order; none, if they are not to be found."""
    decoder = model.causal_lm().get_decoder()  # type: ignore[operator]
    count = decoder.config.num_hidden_layers
    lists = (m for m in decoder.modules() if isinstance(m, torch.nn.ModuleList))
    return next((list(found) for found in lists if len(found) == count), [])


def lowest(region: Collection[str]) -> int:
    """The lowest layer that a region touches; 0 if it touches parameters outside the layers."""
    found = [place(name)["layer"] for name in region]
    return 0 if None in found else min(found, default=0)


class _Reached(Exception):
    """The states that were wanted are there."""


@dataclass
class PrefixCache:
    """The states of rows where they enter the lowest layer that is trained."""

    model: Model
    layers: Sequence[Any]
    first: int  # the lowest trained layer
    groups: Sequence[Collection[Encoded]]  # held together, from when a row of them is asked for
    states: dict[Encoded, torch.Tensor] = field(default_factory=dict)  # [tokens, hidden]

    def reaches(self, layer: int | None) -> bool:
        """True if a forward that ends after a decoder layer enters the lowest trained one.

        Args:
            layer: Number of the layer. If `None`, the last.
        """
        return layer is None or layer >= self.first

    def holds(self, encoded: Sequence[Encoded]) -> bool:
        """True if all of these rows are held, now at the latest."""
        for group in self.groups:
            if any(row in group and row not in self.states for row in encoded):
                self._take(list(group))
        return all(row in self.states for row in encoded)

    @torch.no_grad()
    def _take(self, rows: Sequence[Encoded]) -> None:
        """In batches of their own, so that the bits do not depend on when it is done."""
        entered = list[torch.Tensor]()

        def take(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            entered.append((given[0] if given else named["hidden_states"])[0])
            raise _Reached  # the layers above would be computed for nothing

        decoder = self.model.causal_lm().get_decoder()  # type: ignore[operator]
        hook = self.layers[self.first].register_forward_pre_hook(take, with_kwargs=True)
        try:
            whole = collate(rows, self.model.pad)
            for part in micro_batches(whole, tokens=self.model.tokens, shared=True):
                with suppress(_Reached):
                    packed_states(decoder, part.to(self.model.device))
                states = entered.pop()
                # By row, not by batch: later batches combine the same rows in other ways.
                for row, tokens in zip(part.encoded, part.packed, strict=True):
                    self.states[row] = states[tokens[: len(row.ids)]]
        finally:
            hook.remove()

    @contextmanager
    def standing_in(self, batch: Batch) -> Iterator[None]:
        """Within it, a forward of these rows, which are held, skips the layers below."""
        places = batch.mask.flatten().cumsum(0) - 1
        # A batch with shared prefixes has fewer tokens than its rows: `filled` picks one cell each.
        held = torch.cat([self.states[row] for row in batch.encoded])[places[batch.filled]][None]
        below = self.layers[: self.first]
        # accelerate sets `forward` on instances too, and finds its own again afterwards.
        before = [vars(layer).get("forward") for layer in below]

        def skip(*given: Any, **named: Any) -> Any:
            return given[0] if given else named["hidden_states"]

        def enter(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
            return ((held, *given[1:]), named) if given else ((), named | {"hidden_states": held})

        for layer in below:
            layer.forward = skip
        hook = self.layers[self.first].register_forward_pre_hook(enter, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()
            for layer, forward in zip(below, before, strict=True):
                del layer.forward
                if forward is not None:
                    layer.forward = forward


def make_prefix_cache(
    model: Model, region: Collection[str], groups: Sequence[Iterable[Encoded]]
) -> PrefixCache | None:
    """What stands in for the layers below a region, for rows that pass them many times.

    Args:
        model: one that packs; its layers below the region must not change while this is used.
        region: parameter names.
        groups: the rows, those together that are read together.

    Returns:
        None where there is nothing to gain or it cannot be done: the region reaches the lowest
        layer, something is dropped at random, positions are scaled by the batch, a row is longer
        than what can be packed, or the states would take more than `MOST_BYTES` bytes.
    """
    layers, first = layers_of(model), lowest(region)
    held = [dict.fromkeys(group) for group in groups]
    module: Any = model.causal_lm()
    numbers = sum(len(row.ids) for group in held for row in group)
    numbers *= module.config.get_text_config().hidden_size
    if not layers or not first or model.drops or numbers * module.dtype.itemsize > MOST_BYTES:
        return None
    longest = min(unscaled(model), model.capabilities.packing_window)
    if any(len(row.ids) > longest for group in held for row in group):
        return None
    return PrefixCache(model, layers, first, held)
