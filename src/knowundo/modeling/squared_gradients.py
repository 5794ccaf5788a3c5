"""Mean squared gradients of rows, the diagonal of the empirical Fisher information."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from knowundo.data.batches import collate
from knowundo.data.encoded import Encoded
from knowundo.distributed.sums import own_share, summed
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.model import Model


def mean_squares(
    model: Model, encoded: Sequence[Encoded], names: Iterable[str]
) -> dict[str, torch.Tensor]:
    """Mean over rows of the squared gradient of each row's mean answer cross-entropy.

    The diagonal of the empirical Fisher information. One backward pass per row: squares of sums
    are not sums of squares. Of several processes each takes its share of the rows.

    Args:
        model: Not changed.
        encoded: The rows.
        names: Parameters whose squares are wanted.

    Returns:
        The mean squares by parameter name, each in the shape of its parameter.
    """
    own = model.parameters()
    wanted = {name: own[name] for name in names}
    sums = {name: torch.zeros_like(parameter) for name, parameter in wanted.items()}
    model.train_only(wanted)
    try:
        for row in encoded[own_share()]:
            batch = collate([row], model.pad).to(model.device)
            Half(batch, hidden_states(model, batch), live_head(model)).mean_nll.sum().backward()
            for name, parameter in wanted.items():
                if parameter.grad is not None:
                    sums[name] += parameter.grad.square() / len(encoded)
                    parameter.grad = None
    finally:
        for parameter in wanted.values():
            parameter.grad = None
        model.train_only([])
    whole = summed(list(sums.values()), list(sums.values()))
    return {name: one for name, one in zip(sums, whole, strict=True) if one is not None}
