"""CE-U: cross entropy to the model's own distribution without the true token."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, NonNegativeInt
from torch.nn.functional import cross_entropy

from knowundo.modeling.half import Half
from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.retention_terms import retention_part


@method(reads=("unlearn",))
def ce_u(
    step: Step,
    *,
    skipped: NonNegativeInt = 1,
    retention: NonNegativeFloat = 0.0,
    divergence: NonNegativeFloat = 0.0,
) -> Parts:
    """mean over tokens t of CE(softmax(z, with z[y_t] = −∞), p_t) on unlearn rows.

    The target is made of the current logits z and has no gradient. Yang 2025, arXiv:2503.01224.

    Args:
        step: The step.
        skipped: First tokens of each answer that do not count: they are seldom what is known. A row
            that has no more tokens adds nothing.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    half = step.unlearn
    (values,) = half.by_token(cross_entropy_to_others, half.batch.targets)
    counted = (answer_positions(half) >= skipped).to(values.dtype)
    share = half.per_row(counted).clamp_min(torch.finfo(values.dtype).tiny)
    loss = half.mean(half.per_row(values * counted) / share)
    return {"unlearn": loss} | retention_part(step, retention, divergence)


def answer_positions(half: Half) -> torch.Tensor:
    """Position of each answer token within its answer, [answer tokens], from 0."""
    lengths = half.batch.lengths
    begins = lengths.cumsum(0) - lengths
    return torch.arange(len(half.batch.targets), device=begins.device) - begins[half.batch.rows]


def cross_entropy_to_others(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cross entropy of each token to the distribution without its label, [tokens]."""
    target = logits.detach().scatter(1, labels[:, None], float("-inf")).softmax(-1)
    return (cross_entropy(logits, target, reduction="none"),)
