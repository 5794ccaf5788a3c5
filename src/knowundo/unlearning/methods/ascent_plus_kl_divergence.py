"""Ascent on what must go, closeness to the memorized model on what must stay."""

from __future__ import annotations

from torch.nn.functional import kl_div

from knowundo.forwards import Parts, Step
from knowundo.registry import method


@method
def ascent_plus_kl_divergence(step: Step, *, ascent: float = 1.0, kl: float = 1.0) -> Parts:
    """−ascent·CE(unlearn) + kl·KL(memorized ‖ current) at the answers.

    Yao et al. 2024, arXiv:2402.15159.

    Args:
        ascent: weight of the ascent on unlearn rows.
        kl: weight of the divergence on retention (or general) rows, mean per answer token.
    """
    current = step.retention.logits.log_softmax(-1)
    memorized = step.reference.retention.logits.log_softmax(-1)
    divergence = kl_div(current, memorized, reduction="none", log_target=True).sum(-1)
    return {
        "unlearn": -ascent * step.unlearn.mean_nll.mean(),
        "retention": kl * step.retention.per_row(divergence).mean(),
    }
