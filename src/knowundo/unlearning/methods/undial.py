"""UNDIAL: self-distillation on adjusted logits."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch.nn.functional import cross_entropy

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.retention_terms import retention_part


@method(reads=("unlearn", "reference"))
def undial(
    step: Step,
    *,
    strength: PositiveFloat = 10.0,
    retention: NonNegativeFloat = 0.0,
    divergence: NonNegativeFloat = 0.0,
) -> Parts:
    """mean over tokens t of CE(softmax(z − β·onehot(y_t)), p_t), z of the memorized model.

    Dong et al. 2024, arXiv:2402.10052. Only the answers' tokens count; OpenUnlearning's code also
    counts padding and question.

    Args:
        step: The step.
        strength: β, which is taken off the true token's logit; the authors try 3, 10 and 30.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """

    def distillation(
        logits: torch.Tensor, before: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        labels = labels[:, None]
        lowered = before.scatter(1, labels, before.gather(1, labels) - strength)
        return (cross_entropy(logits, lowered.softmax(-1), reduction="none"),)

    half = step.unlearn
    (values,) = half.against(step.reference.unlearn, distillation, half.batch.targets)
    loss = half.mean(half.per_row(values))
    return {"unlearn": loss} | retention_part(step, retention, divergence)
