"""WGA: gradient ascent that weights each token by its probability."""

from __future__ import annotations

from pydantic import NonNegativeFloat

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.retention_terms import retention_part


@method(reads=("unlearn", "retention"))
def wga(
    step: Step,
    *,
    beta: NonNegativeFloat = 1.0,
    retention: NonNegativeFloat = 1.0,
    divergence: NonNegativeFloat = 0.0,
) -> Parts:
    """mean over tokens t of p(y_t)^β · log p(y_t) on unlearn rows; the weight has no gradient.

    Weighted gradient ascent, Wang et al. 2025, arXiv:2502.19301. A token that is unlikely already
    has a small weight, so its likelihood is not lowered without end.

    Args:
        step: The step.
        beta: Exponent of the probability; 0 is gradient ascent.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    nll = step.unlearn.token_nll
    weights = (-beta * nll.detach()).exp()
    loss = -step.unlearn.mean(step.unlearn.per_row(weights * nll))
    return {"unlearn": loss} | retention_part(step, retention, divergence)
