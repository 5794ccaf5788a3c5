"""Representation misdirection for unlearning."""

from __future__ import annotations

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.hidden_states import (
    chosen_layer,
    direction,
    layer_retention_part,
    random_direction,
    squared_distance,
)


@method(reads=("unlearn", "retention", "reference"))
def rmu(
    step: Step,
    *,
    layer: NonNegativeInt | None = None,
    steering: PositiveFloat = 2.0,
    alpha: NonNegativeFloat = 1.0,
) -> Parts:
    """MSE(h(unlearn), steering·u) + alpha·MSE(h(retention), memorized h(retention)).

    h are the hidden states after one decoder layer at the answers, u is one random unit vector.
    Only the parameters up to this layer get a gradient. Li et al. 2024 (WMDP), arXiv:2403.03218.

    Args:
        step: The step.
        layer: Number of the decoder layer, from 0. If `None`, a quarter of the way up, which is 7
            of 32 as in the paper.
        steering: Norm of the vector that the hidden states are steered to. The paper takes 6.5 for
            Zephyr-7B, OpenUnlearning 2 for models of 1 B parameters.
        alpha: Weight of the distance on retention (or general) rows. The paper takes 1200.
    """
    number = chosen_layer(step, layer)
    unlearn = squared_distance(step.unlearn, number, steering * direction(step))
    return {"unlearn": step.unlearn.mean(unlearn)} | layer_retention_part(step, number, alpha)


rmu.prepare(random_direction)
