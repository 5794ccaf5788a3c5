"""JensUn: Jensen-Shannon divergences on what must go and on what must stay."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from pydantic import NonNegativeFloat, PositiveFloat

from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.half import Columns
from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.start import Scorer


@method(reads=("unlearn", "retention", "reference"))
def jensun(
    step: Step,
    *,
    target: str = "No idea",
    unlearn: PositiveFloat = 1.0,
    retention: NonNegativeFloat = 1.0,
) -> Parts:
    """mean over tokens t of JSD(onehot(target_t), p_t); retention: JSD(memorized, current).

    JSD(p, q) = ½·KL(p ‖ m) + ½·KL(q ‖ m) with m = ½·(p + q), which is bounded by ln 2. Singh et al.
    2025, arXiv:2509.02820.

    Args:
        step: The step.
        target: Text whose tokens, repeated, stand in place of an answer's tokens.
        unlearn: Weight of the divergence on unlearn rows.
        retention: Weight of the divergence on retention (or general) rows. If 0, it is not read.
    """
    half, column = step.unlearn, step.columns["target"]
    labels = torch.cat([column[row.record.id] for row in half.batch.encoded])
    (values,) = half.by_token(to_one_token, labels.to(half.states.device))
    parts = {"unlearn": unlearn * half.mean(half.per_row(values))}
    if retention:
        half = step.retention
        (values,) = half.against(step.reference.retention, jensen_shannon)
        parts["retention"] = retention * half.mean(half.per_row(values))
    return parts


def to_one_token(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Jensen-Shannon divergence of each token from a distribution on one label, [tokens]."""
    at_label = logits.log_softmax(-1).gather(1, labels[:, None])[:, 0]
    p = at_label.exp()
    middle = p.log1p() - log(2)  # log m at the label; elsewhere m is p / 2
    return (0.5 * (p * (at_label - middle) + (1 - p) * log(2) - middle),)


def jensen_shannon(logits: torch.Tensor, before: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Jensen-Shannon divergence of both models' distributions, [tokens]."""
    now, before = logits.log_softmax(-1), before.log_softmax(-1)
    middle = torch.logaddexp(now, before) - log(2)
    both = now.exp() * (now - middle) + before.exp() * (before - middle)
    return (0.5 * both.sum(-1),)


@jensun.prepare
def targets(records: Sequence[Encoded], scorer: Scorer, *, target: str) -> Columns:
    """Repeat the target's tokens over each answer.

    Raises:
        BadInput: The target has no token.
    """
    if not (ids := scorer.tokens(target)):
        raise BadInput("method jensun: target: it has no token; give a text such as 'No idea'")
    labels = {r.record.id: [ids[n % len(ids)] for n in range(r.answer_length)] for r in records}
    return {"target": {name: torch.tensor(row) for name, row in labels.items()}}
