"""FLAT: loss adjustment with only forget data."""

from __future__ import annotations

from math import log
from typing import Literal

import torch
from pydantic import NonNegativeFloat
from torch.nn.functional import softplus

from knowundo.modeling.half import Half
from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.answers import AnswerSource, alternatives
from knowundo.unlearning.retention_terms import retention_part

Divergence = Literal["total_variation", "kl", "jensen_shannon", "pearson"]


@method(reads=("unlearn", "alternative"))
def flat(
    step: Step,
    *,
    f: Divergence = "total_variation",
    answers: AnswerSource = "unknown",
    retention: NonNegativeFloat = 0.0,
    divergence: NonNegativeFloat = 0.0,
) -> Parts:
    """−g*(P(alternative)) + f*(g*(P(unlearn answer))); P is the mean probability of its tokens.

    The f-divergence between other answers and unlearn answers in its variational form is maximized,
    without a reference or retention rows. Wang et al. 2024, arXiv:2410.11143. P is a mean over the
    answer; the authors' code divides by the length of the padded row.

    Args:
        step: The step.
        f: The f-divergence.
        answers: `unknown`, `refusal`, `model` (sampled from the memorized model), `instructed`
            (sampled likewise, after it is shown the answer and asked for another one), `given` (the
            `alternatives` of the rows) or a file with one answer a line.
        retention: Weight of the mean cross-entropy on retention (or general) rows.
        divergence: Weight of KL(memorized ‖ current) on the same rows, mean per answer token.
    """
    gained, _ = variational(mean_probability(step.alternative), f)
    _, remains = variational(mean_probability(step.unlearn), f)
    loss = step.unlearn.mean(remains - gained)
    return {"unlearn": loss} | retention_part(step, retention, divergence)


def mean_probability(half: Half) -> torch.Tensor:
    """Mean probability of each answer's tokens, [rows]."""
    return half.per_row((-half.token_nll).exp())


def variational(v: torch.Tensor, f: Divergence) -> tuple[torch.Tensor, torch.Tensor]:
    """g*(v) and f*(g*(v)) of an f-divergence, the shape of v each."""
    if f == "total_variation":
        return v.tanh() / 2, v.tanh() / 2
    if f == "kl":
        return v, (v - 1).exp()
    if f == "pearson":
        return v, v.square() / 4 + v
    return log(2) - softplus(-v), v + softplus(-v) - log(2)


flat.prepare(alternatives)
