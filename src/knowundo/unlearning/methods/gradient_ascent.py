"""Gradient ascent."""

from __future__ import annotations

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method


@method(reads=("unlearn",))
def gradient_ascent(step: Step) -> Parts:
    """Ascend the loss on the unlearn rows: −CE(unlearn) (Jang et al. 2023, arXiv:2210.01504)."""
    return {"unlearn": -step.unlearn.mean(step.unlearn.mean_nll)}
