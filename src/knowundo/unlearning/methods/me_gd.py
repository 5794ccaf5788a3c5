"""ME+GD: maximal entropy on what must go, descent on what must stay."""

from __future__ import annotations

from math import log

import torch
from pydantic import NonNegativeFloat, PositiveFloat

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.retention_terms import retention_part


@method(reads=("unlearn", "retention"))
def me_gd(
    step: Step,
    *,
    unlearn: PositiveFloat = 0.1,
    retention: NonNegativeFloat = 1.0,
    divergence: NonNegativeFloat = 0.0,
) -> Parts:
    """mean over tokens of KL(uniform ‖ current) on unlearn rows.

    Yuan et al. 2024, arXiv:2410.08109. The authors' code counts the tokens of question and answer;
    here they are those of the answer.

    Args:
        step: The step.
        unlearn: Weight of the loss on unlearn rows; the authors take 1.0 for continual unlearning.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    (values,) = step.unlearn.by_token(divergence_from_uniform)
    loss = step.unlearn.mean(step.unlearn.per_row(values))
    return {"unlearn": unlearn * loss} | retention_part(step, retention, divergence)


def divergence_from_uniform(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """KL(uniform ‖ current) of each token, [tokens]."""
    return (-log(logits.shape[-1]) - logits.log_softmax(-1).mean(-1),)
