"""What losses have in common on the rows that must stay."""

from __future__ import annotations

import torch

from knowundo.modeling.step import Parts, Step


def divergence_from_memorized(step: Step) -> torch.Tensor:
    """KL(memorized ‖ current) on the retention rows, mean over each row's answer tokens, [rows]."""
    return step.retention.divergence_from(step.reference.retention)


def retention_part(step: Step, retention: float, divergence: float) -> Parts:
    """The part `retention`: retention·CE + divergence·KL(memorized ‖ current).

    A term of weight 0 is not read, so that no forward is paid for it; without any there is no part.
    """
    terms = []
    if retention:
        terms.append(retention * step.retention.mean(step.retention.mean_nll))
    if divergence:
        terms.append(divergence * step.retention.mean(divergence_from_memorized(step)))
    return {"retention": torch.stack(terms).sum()} if terms else {}
