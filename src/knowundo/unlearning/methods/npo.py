"""Negative preference optimization."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat
from torch.nn.functional import logsigmoid

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.retention_terms import retention_part


@method(reads=("unlearn", "retention", "reference"))
def npo(
    step: Step,
    *,
    beta: PositiveFloat = 0.1,
    retention: NonNegativeFloat = 1.0,
    divergence: NonNegativeFloat = 0.0,
) -> Parts:
    """−(2/β)·log σ(−β·log(current / memorized)) of unlearn answers.

    Zhang et al. 2024, arXiv:2404.05868.

    Args:
        step: The step.
        beta: Inverse temperature; towards 0 this becomes gradient ascent.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    log_ratio = step.reference.unlearn.nll - step.unlearn.nll  # [rows], log(current / memorized)
    unlearn = -2 / beta * step.unlearn.mean(logsigmoid(-beta * log_ratio))
    return {"unlearn": unlearn} | retention_part(step, retention, divergence)
