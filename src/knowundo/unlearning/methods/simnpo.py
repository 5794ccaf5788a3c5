"""SimNPO: negative preference optimization without a reference."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat
from torch.nn.functional import logsigmoid

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.retention_terms import retention_part


@method(reads=("unlearn", "retention"))
def simnpo(
    step: Step,
    *,
    beta: PositiveFloat = 2.5,
    margin: NonNegativeFloat = 0.0,
    unlearn: PositiveFloat = 0.1375,
    retention: NonNegativeFloat = 1.0,
    divergence: NonNegativeFloat = 0.0,
) -> Parts:
    """−(2/β)·log σ(−(β/|y|)·log p(y) − γ) of unlearn answers y of |y| tokens.

    Fan et al. 2024, arXiv:2410.07163. The defaults are those of the authors' TOFU runs.

    Args:
        step: The step.
        beta: Inverse temperature β; towards 0 this becomes gradient ascent.
        margin: Reward margin γ; OpenUnlearning's δ is γ/β.
        unlearn: Weight of the loss on unlearn rows.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    preferred = logsigmoid(beta * step.unlearn.mean_nll - margin)  # [rows]
    loss = -2 / beta * step.unlearn.mean(preferred)
    return {"unlearn": unlearn * loss} | retention_part(step, retention, divergence)
