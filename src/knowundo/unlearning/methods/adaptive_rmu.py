"""RMU whose target has the norm that the memorized model's hidden states have."""

from __future__ import annotations

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat

from knowundo.modeling.fast.chunked_logits import full_precision
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
def adaptive_rmu(
    step: Step,
    *,
    layer: NonNegativeInt | None = None,
    beta: PositiveFloat = 5.0,
    alpha: NonNegativeFloat = 1.0,
) -> Parts:
    """MSE(h(unlearn), beta·‖memorized h(unlearn)‖·u) + alpha·MSE(h(retention), memorized h).

    As `rmu`, but the norm of the target follows the layer and the token, so that one `beta` serves
    all layers. Dang et al. 2024, arXiv:2408.06223. The norm is of each token, as the paper writes
    it; the authors' code takes the mean norm of the first batch for all of them.

    Args:
        step: The step.
        layer: Number of the decoder layer, from 0. If `None`, a quarter of the way up, which is 7
            of 32.
        beta: Norm of the target, in norms of the memorized model's hidden state of the same token.
            The authors' code takes 5.
        alpha: Weight of the distance on retention (or general) rows. The paper takes 1200.
    """
    number = chosen_layer(step, layer)
    norms = full_precision(step.reference.unlearn.layer(number)).norm(dim=-1, keepdim=True)
    unlearn = squared_distance(step.unlearn, number, beta * norms * direction(step))
    return {"unlearn": step.unlearn.mean(unlearn)} | layer_retention_part(step, number, alpha)


adaptive_rmu.prepare(random_direction)
