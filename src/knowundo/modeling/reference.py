"""The frozen memorized model: hidden states of each row, computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch

from knowundo.data.batches import Batch
from knowundo.data.encoded import Encoded
from knowundo.modeling.forward import Forward, answer_states
from knowundo.modeling.half import Half, HeldHalf
from knowundo.modeling.head import Head, frozen_head
from knowundo.modeling.model import Model


@dataclass
class Reference:
    """The memorized model's hidden states at the answers' positions, by row.

    Frozen and computed once: logits of the reference cost one product with the head, likelihoods
    not even that, and there is no second model, and no switching of adapters inside the training
    loop. Rows that no loss reads are not held. Rows `apart` are held in batches of their own, so
    that the others' bits do not depend on them.
    """

    model: Model
    rows: Sequence[Encoded]
    head: Head
    states: dict[Encoded, torch.Tensor] = field(default_factory=dict)
    known: dict[Encoded, torch.Tensor] = field(default_factory=dict)  # mean likelihoods, by row
    layers: dict[int, dict[Encoded, torch.Tensor]] = field(default_factory=dict)  # after a layer
    apart: Sequence[Encoded] = ()

    @classmethod
    def of(cls, model: Model, encoded: Sequence[Encoded]) -> Reference:
        """A reference that can hold these rows, over the head as it is now."""
        return cls(model, list(dict.fromkeys(encoded)), frozen_head(model))

    def held(self, layer: int | None = None) -> dict[Encoded, torch.Tensor]:
        """The hidden states that are held, by row: after a layer, or, if `None`, the final ones."""
        return self.states if layer is None else self.layers.setdefault(layer, {})

    def hold(
        self,
        wanted: Iterable[Encoded],
        among: Sequence[Encoded] | None = None,
        forward: Forward | None = None,
        layer: int | None = None,
    ) -> None:
        """Take the states of rows that are not held yet, of the model as it is now.

        Args:
            wanted: The rows.
            among: Rows whose batches they share. If `None`, all that the reference can hold, so
                that a row's bits do not depend on what else is wanted.
            forward: How they are computed. If `None`, without a prefix cache.
            layer: The decoder layer after which they are taken. If `None`, the final ones.
        """
        held = self.held(layer)
        missing = {row for row in wanted if row not in held}
        if not missing:
            return
        training = self.model.net.training
        self.model.net.eval()  # no dropout in what is frozen
        among = self.rows if among is None else among
        taken = answer_states(forward or Forward(self.model), among, only=missing, layer=layer)
        held.update((row, part.clone()) for row, part in taken if row in missing)
        self.model.net.train(training)

    def half(self, batch: Batch, before: Callable[[int | None], None] | None = None) -> Half:
        """The reference's view of a batch of rows.

        Args:
            batch: The rows.
            before: Called before states are read, with their layer (`None`: the final ones), to
                hold them. If `None`, they are held already.
        """

        def states(layer: int | None = None) -> torch.Tensor:
            if before is not None:
                before(layer)
            held = self.held(layer)
            return torch.cat([held[row] for row in batch.encoded])

        return HeldHalf(batch, states, self.head, self.known, states)
