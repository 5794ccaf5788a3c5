"""Loss terms on the rows that must stay, which several methods share."""

from __future__ import annotations

import torch

from knowundo.modeling.step import Parts, Step


def divergence_from_memorized(step: Step) -> torch.Tensor:
    """Return KL(memorized ‖ current) on the retention rows, mean per answer token, [rows]."""
    return step.retention.divergence_from(step.reference.retention)


def retention_part(step: Step, retention: float, divergence: float) -> Parts:
    """Return the part `retention`: retention·CE + divergence·KL(memorized ‖ current).

    Args:
        step: The step.
        retention: Weight of the mean cross-entropy. If 0, it is not computed.
        divergence: Weight of the divergence. If 0, it is not computed.

    Returns:
        The part, or no part if both weights are 0.
    """
    terms = []
    if retention:
        terms.append(retention * step.retention.mean(step.retention.mean_nll))
    if divergence:
        terms.append(divergence * step.retention.mean(divergence_from_memorized(step)))
    return {"retention": torch.stack(terms).sum()} if terms else {}
