"""IHL: the inverted hinge loss of LoKU."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.retention_terms import retention_part


@method(reads=("unlearn", "retention"))
def ihl(
    step: Step, *, retention: NonNegativeFloat = 1.0, divergence: NonNegativeFloat = 0.0
) -> Parts:
    """mean over tokens t of 1 + p(y_t) − max over v ≠ y_t of p(v), on unlearn rows.

    Cha et al. 2024, arXiv:2408.06621: the loss of LoKU, without its initialization of LoRA (FILA).
    It is bounded by 0 and 2 and needs no reference.

    Args:
        step: The step.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    (values,) = step.unlearn.by_token(inverted_hinge, step.unlearn.batch.targets)
    loss = step.unlearn.mean(step.unlearn.per_row(values))
    return {"unlearn": loss} | retention_part(step, retention, divergence)


def inverted_hinge(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Inverted hinge loss of each token, [tokens]."""
    probabilities = logits.softmax(-1)
    true = probabilities.gather(1, labels[:, None])[:, 0]
    others = probabilities.scatter(1, labels[:, None], 0.0)
    return (1 + true - others.max(-1).values,)
