"""RKLD: reverse KL divergence from a generic teacher."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.reinforcement import against_generic, reinforced
from knowundo.unlearning.retention_terms import retention_part


@method(reads=("unlearn", "reference"))
def rkld(
    step: Step,
    *,
    strength: PositiveFloat = 8.0,
    epochs: PositiveInt = 10,
    rate: PositiveFloat = 1e-3,
    retention: NonNegativeFloat = 0.0,
    divergence: NonNegativeFloat = 0.0,
) -> Parts:
    """mean over tokens of KL(current ‖ softmax(z − α·ReLU(z_reinforced − z))), z memorized logits.

    Wang et al. 2024, arXiv:2406.01983. The reinforced model is the memorized one trained further on
    the unlearn rows; its LoRA is trained before the method and not kept.

    Args:
        step: The step.
        strength: α; the authors take 8 for TOFU and 4 for Harry Potter.
        epochs: Passes over the unlearn rows that reinforce the model.
        rate: Peak learning rate of these, for LoRA. The authors take 1e-5 for all weights and lists
            of hundreds of rows; a step has 32 rows.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    loss = step.unlearn.mean(against_generic(step, strength, reverse_divergence))
    return {"unlearn": loss} | retention_part(step, retention, divergence)


def reverse_divergence(logits: torch.Tensor, generic: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """KL(current ‖ generic) of each token, [tokens]."""
    now = logits.log_softmax(-1)
    return ((now.exp() * (now - generic.log_softmax(-1))).sum(-1),)


rkld.prepare(reinforced)
