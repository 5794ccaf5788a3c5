"""Loss terms on the hidden states after a decoder layer, which several methods share."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from knowundo.data.encoded import Encoded
from knowundo.modeling.fast.chunked_logits import full_precision
from knowundo.modeling.fast.prefix_cache import layers_of
from knowundo.modeling.half import Columns, Half
from knowundo.modeling.step import Parts, Step
from knowundo.unlearning.scorer import Scorer


def random_direction(records: Sequence[Encoded], scorer: Scorer) -> Columns:
    """Draw one random unit vector, [hidden], for all rows (a method's `prepare`).

    Its numbers are uniform in [0, 1) before it is normalized, as in WMDP's code: all of them are
    positive.
    """
    generator = torch.Generator().manual_seed(scorer.seed)
    drawn = torch.rand(scorer.hidden_size, generator=generator)
    direction = drawn / drawn.norm()
    return {"direction": {row.record.id: direction for row in records}}


def direction(step: Step) -> torch.Tensor:
    """The unit vector that `random_direction` drew, [hidden], on the model's device."""
    drawn: torch.Tensor = next(iter(step.columns["direction"].values()))
    return drawn.to(step.model.device)


def chosen_layer(step: Step, layer: int | None) -> int:
    """The number of the decoder layer to steer: 7 of 32 and the like, if it is `None`."""
    return max(len(layers_of(step.model)) // 4 - 1, 0) if layer is None else layer


def squared_distance(half: Half, layer: int, target: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of the hidden states after a layer from a target, [rows].

    Args:
        half: The rows.
        layer: Number of the decoder layer, from 0.
        target: [hidden] or [answer tokens, hidden], without gradients.

    Returns:
        Mean over hidden dimensions and over each row's answer tokens.
    """
    states = full_precision(half.layer(layer))
    return half.per_row((states - target).square().mean(-1))


def layer_retention_part(step: Step, layer: int, alpha: float) -> Parts:
    """Return the part `retention`: alpha·MSE(h(retention), memorized h(retention)).

    Args:
        step: The step.
        layer: Number of the decoder layer, from 0.
        alpha: Weight. If 0, nothing is computed and there is no part.
    """
    if not alpha:
        return {}
    memorized = full_precision(step.reference.retention.layer(layer))
    distance = squared_distance(step.retention, layer, memorized)
    return {"retention": alpha * step.retention.mean(distance)}
