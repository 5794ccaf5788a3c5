"""Ascent on what must go, descent on what must stay."""

from __future__ import annotations

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method


@method(reads=("unlearn", "retention"))
def ascent_plus_descent(step: Step, *, ascent: float = 1.0, descent: float = 1.0) -> Parts:
    """−ascent·CE(unlearn) + descent·CE(retention) (Liu et al. 2022, arXiv:2203.12817).

    Args:
        step: The step.
        ascent: Weight of the ascent on unlearn rows; MemFlex takes 0.4.
        descent: Weight of the descent on retention (or general) rows; MemFlex takes 2.0.
    """
    return {
        "unlearn": -ascent * step.unlearn.mean(step.unlearn.mean_nll),
        "retention": descent * step.retention.mean(step.retention.mean_nll),
    }
