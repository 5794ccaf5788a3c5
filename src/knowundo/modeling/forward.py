"""Forward passes that compute hidden states at answer positions only."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from knowundo.data.batches import Batch, collate
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.capabilities import packable, pads
from knowundo.modeling.fast import packing
from knowundo.modeling.fast.chunked_logits import full_precision
from knowundo.modeling.fast.oom import in_portions
from knowundo.modeling.fast.prefix_cache import Lower
from knowundo.modeling.head import live_head, own_head
from knowundo.modeling.model import Model
from knowundo.modeling.padded import all_hidden_states, of_each
from knowundo.modeling.positions import reset, together


def hidden_states(model: Model, batch: Batch) -> torch.Tensor:
    """Final hidden states at the positions that predict the answers, [answer tokens, hidden].

    Without padding where the model allows it, and without the layers below what is trained where
    `model.lower` stands in for them; rows that would change each other in separate forwards. Logits
    of a model whose head is not computed apart (`own_head`). Of a
    batched multi-adapter forward: [adapters · answer tokens, …].

    Raises:
        BadInput: Layers are trained, and no gradient reaches them.
    """
    states = _in_groups(model, batch)
    if torch.is_grad_enabled() and not states.requires_grad:
        _check_reached(model)
    return states


def _check_reached(model: Model) -> None:
    """Refuse to train what the states do not depend on, as far as autograd knows.

    Raises:
        BadInput: Layers are trained, and no gradient reaches them.
    """
    module: Any = model.causal_lm()
    layers = module.get_decoder() if own_head(model) else module
    if any(parameter.requires_grad for parameter in layers.parameters()):
        raise BadInput(
            f"model.base '{model.base}': no gradient reaches the layers that are to be trained; "
            "train all weights instead (--route full, or model.adaptation=full)"
        )


def _in_groups(model: Model, batch: Batch) -> torch.Tensor:
    """The same, in as many forwards as it takes."""
    equal = not packable(model, batch) and not pads(model)
    groups = together(model, [len(row.ids) for row in batch.encoded], equal=equal)
    if len(groups) == 1:
        reset(model)
        return _states(model, batch)
    rows = dict[int, torch.Tensor]()
    for group in groups:
        reset(model)
        part = collate([batch.encoded[n] for n in group], batch.pad).to(model.device)
        states = _states(model, part).unflatten(0, (model.abreast, -1))
        rows |= zip(group, states.split(part.lengths.tolist(), dim=1), strict=True)
    return torch.cat([rows[number] for number in range(len(batch))], dim=1).flatten(0, 1)


def _states(model: Model, batch: Batch) -> torch.Tensor:
    """The same of rows that share one forward."""
    if not packable(model, batch):
        cells = of_each(model, batch.positions, batch.ids.numel())
        return all_hidden_states(model, batch).flatten(0, 1)[cells]
    if model.drops and model.net.training:
        batch = batch.apart()
    lower: Lower | None = model.lower
    held = lower is not None and lower.holds(batch.encoded)
    with lower.standing_in(batch) if lower and held else nullcontext():
        decoder = model.causal_lm().get_decoder()  # type: ignore[operator]
        states, _ = packing.packed_states(decoder, batch, model.abreast)
    return states[of_each(model, batch.packed.flatten()[batch.positions], len(batch.filled))]


def answer_states(
    model: Model,
    encoded: Sequence[Encoded],
    size: int = 64,
    *,
    only: Collection[Encoded] | None = None,
) -> Iterator[tuple[Encoded, torch.Tensor]]:
    """Hidden states of each row's answer, [answer tokens, hidden], shortest rows first.

    Batches without a row of `only`, if that is given, are passed over. Where memory runs out, a
    batch is halved. Of adapters abreast: [adapters, answer tokens, hidden].
    """

    def states(rows: Sequence[Encoded]) -> list[tuple[Encoded, torch.Tensor]]:
        if only is not None and not any(row in only for row in rows):
            return []
        batch = collate(rows, model.pad).to(model.device)
        with torch.no_grad():
            found = hidden_states(model, batch)
        if model.abreast > 1:
            found = found.unflatten(0, (model.abreast, -1))
        return list(zip(rows, found.split(batch.lengths.tolist(), dim=-2), strict=True))

    order = sorted(encoded, key=lambda row: len(row.ids))
    for part in in_portions(
        order, max(1, size // model.abreast), states, model.notes.add, "scoring"
    ):
        yield from part


def answer_logits(
    model: Model, encoded: Sequence[Encoded], *, only: Collection[Encoded] | None = None
) -> Iterator[tuple[Encoded, torch.Tensor]]:
    """Logits of each row's answer, [answer tokens, vocabulary], shortest rows first.

    Batches without a row of `only`, if that is given, are passed over.
    """
    head = live_head(model)
    for row, states in answer_states(model, encoded, only=only):
        with torch.no_grad():
            logits = full_precision(head(states))
        yield row, logits  # outside, or whoever reads two streams at once stays without gradients
