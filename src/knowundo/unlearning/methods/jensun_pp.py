"""JensUn++: Jensen-Shannon divergence from a refusal, whose first token counts most."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat

from knowundo.modeling.half import Half
from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.answers import AnswerSource, alternatives
from knowundo.unlearning.jensen_shannon import jensen_shannon_part, to_one_token


@method(reads=("alternative", "retention", "reference"))
def jensun_pp(
    step: Step,
    *,
    answers: AnswerSource = "refusal",
    first: Annotated[float, Field(gt=0, le=1)] = 0.5,
    unlearn: PositiveFloat = 1.0,
    retention: NonNegativeFloat = 1.0,
) -> Parts:
    """Σ over a refusal's tokens t of w_t·JSD(onehot(y_t), p_t); retention: JSD(memorized, current).

    The refusal's first token weighs `first`, the others share the rest. JensUn (Singh et al. 2025,
    arXiv:2509.02820) as Peleg et al. 2026 ("Forget Narrowly, Retain Broadly") extend it. They also
    make the unlearn gradient as long as the retention gradient: `gradients: balance`, which the
    preset has. Their refusals after a beginning of the true answer, and pairs of unlearn and
    retention rows that are reworded alike, are left out.

    Args:
        step: The step.
        answers: `refusal`, `unknown`, `given` (the `alternatives` of the rows), `model` or
            `instructed` (the memorized model's own), or a file with one answer a line.
        first: Weight of the first token of an answer.
        unlearn: Weight of the divergence on unlearn rows. Beside `gradients: balance` it has no
            effect: give its weight there.
        retention: Weight of the divergence on retention (or general) rows. If 0, it is not read.
    """
    half = step.alternative
    (values,) = half.by_token(to_one_token, half.batch.targets)
    # A mean over tokens of what is weighted and multiplied by their count is a weighted sum.
    weights = _weights(half, first, values.dtype)
    loss = half.mean(half.per_row(values * weights * _lengths(half)))
    return {"unlearn": unlearn * loss} | jensen_shannon_part(step, retention)


jensun_pp.prepare(alternatives)


def _lengths(half: Half) -> torch.Tensor:
    """Number of tokens of each token's answer, [answer tokens]."""
    return half.batch.lengths[half.batch.rows]


def _weights(half: Half, first: float, dtype: torch.dtype) -> torch.Tensor:
    """Weight of each token in its answer, [answer tokens]; they add up to 1 in each row."""
    rows, others = half.batch.rows, (_lengths(half) - 1).to(dtype)
    begins = torch.ones_like(rows, dtype=torch.bool)
    begins[1:] = rows[1:] != rows[:-1]
    of_first = torch.where(others == 0, torch.ones_like(others), torch.full_like(others, first))
    return torch.where(begins, of_first, (1 - first) / others.clamp_min(1))
