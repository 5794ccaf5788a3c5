"""WHP: descent on generic predictions, as in "Who's Harry Potter?"."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch.nn.functional import cross_entropy

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.reinforcement import against_generic, reinforced
from knowundo.unlearning.retention_terms import retention_part


@method(reads=("unlearn", "reference"))
def whp(
    step: Step,
    *,
    strength: PositiveFloat = 1.0,
    epochs: PositiveInt = 10,
    rate: PositiveFloat = 1e-3,
    retention: NonNegativeFloat = 0.0,
    divergence: NonNegativeFloat = 0.0,
) -> Parts:
    """CE(argmax of z − α·ReLU(z_reinforced − z) in place of the answer), z memorized logits.

    Eldan and Russinovich 2023, arXiv:2310.02238. The reinforced model is the memorized one trained
    further on the unlearn rows; its LoRA is trained before the method and not kept. The authors
    also replace names by a dictionary of generic ones, which is not done here. An answer that the
    memorized model is certain of gains little: where its token stays the likeliest, it is not
    unlearned, so strength and rate may have to be higher.

    Args:
        step: The step.
        strength: α, 1 as in MUSE (Shi et al. 2024, arXiv:2407.06460).
        epochs: Passes over the unlearn rows that reinforce the model.
        rate: Peak learning rate of these, for LoRA.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    loss = step.unlearn.mean(against_generic(step, strength, to_likeliest))
    return {"unlearn": loss} | retention_part(step, retention, divergence)


def to_likeliest(logits: torch.Tensor, generic: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cross entropy of each token to the likeliest generic one, [tokens]."""
    return (cross_entropy(logits, generic.argmax(-1), reduction="none"),)


whp.prepare(reinforced)
