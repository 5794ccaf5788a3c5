"""Ascent on what must go, closeness to the memorized model on what must stay."""

from __future__ import annotations

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.retention_terms import divergence_from_memorized


@method(reads=("unlearn", "retention", "reference"))
def ascent_plus_kl_divergence(step: Step, *, ascent: float = 1.0, kl: float = 1.0) -> Parts:
    """−ascent·CE(unlearn) + kl·KL(memorized ‖ current) at the answers.

    Yao et al. 2024, arXiv:2402.15159.

    Args:
        step: The step.
        ascent: Weight of the ascent on unlearn rows.
        kl: Weight of the divergence on retention (or general) rows, mean per answer token.
    """
    divergence = divergence_from_memorized(step)
    return {
        "unlearn": -ascent * step.unlearn.mean(step.unlearn.mean_nll),
        "retention": kl * step.retention.mean(divergence),
    }
