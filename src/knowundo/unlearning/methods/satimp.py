"""SatImp: gradient ascent weighted by saturation and importance of each token."""

from __future__ import annotations

from pydantic import NonNegativeFloat

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.retention_terms import retention_part


@method(reads=("unlearn", "retention"))
def satimp(
    step: Step,
    *,
    saturation: NonNegativeFloat = 5.0,
    importance: NonNegativeFloat = 1.0,
    retention: NonNegativeFloat = 0.1,
    divergence: NonNegativeFloat = 0.0,
) -> Parts:
    """mean over tokens t of p^β₁ · (1 − p)^β₂ · log p, p = p(y_t); the weights have no gradient.

    Yang et al. 2025, arXiv:2505.11953. The authors weight the unlearn rows ten times as much as the
    retention rows; OpenUnlearning's configuration file has the opposite ratio.

    Args:
        step: The step.
        saturation: Exponent β₁ of p: a token that is unlikely already has a small weight.
        importance: Exponent β₂ of 1 − p: a token that is certain has a small weight.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    nll = step.unlearn.token_nll
    likely = (-nll.detach()).exp()
    weights = likely**saturation * (1 - likely).clamp_min(0.0) ** importance
    loss = -step.unlearn.mean(step.unlearn.per_row(weights * nll))
    return {"unlearn": loss} | retention_part(step, retention, divergence)
