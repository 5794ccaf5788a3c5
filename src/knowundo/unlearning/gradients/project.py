"""The unlearn gradient without what conflicts with retention."""

from __future__ import annotations

from knowundo.registry import combination
from knowundo.training.separate_gradients import Gradients, StepGradients
from knowundo.unlearning.vectors import added, conflict


@combination()
def project(step: StepGradients) -> Gradients:
    """If the two conflict, the unlearn gradient loses its component against the retention gradient.

    The retention gradient stays as it is, so that to first order a step does not raise the
    retention parts: GRU (Wang et al. 2025, arXiv:2503.09117) without its moving average.

    Args:
        step: Both gradients.
    """
    # (u − a·r) + r = u + (1 − a)·r
    of_retention = 1 - conflict(step.unlearn, step.retention)
    return added(step.unlearn, step.retention, of_other=of_retention)
