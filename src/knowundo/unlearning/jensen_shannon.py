"""Jensen-Shannon divergences, which are bounded by ln 2: loss terms of JensUn and JensUn++."""

from __future__ import annotations

from math import log

import torch

from knowundo.modeling.step import Parts, Step


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


def jensen_shannon_part(step: Step, retention: float) -> Parts:
    """Return the part `retention`: JSD(memorized, current), mean per answer token.

    Args:
        step: The step.
        retention: Weight. If 0, nothing is computed and there is no part.
    """
    if not retention:
        return {}
    half = step.retention
    (values,) = half.against(step.reference.retention, jensen_shannon)
    return {"retention": retention * half.mean(half.per_row(values))}
