"""Both gradients without what conflicts with the other."""

from __future__ import annotations

from knowundo.registry import combination
from knowundo.training.separate_gradients import Gradients, StepGradients
from knowundo.unlearning.vectors import added, conflict


@combination()
def conflict_free(step: StepGradients) -> Gradients:
    """If the two conflict, each gradient loses its component against the other as it was.

    Their sum then has no negative product with either: PCGrad (Yu et al. 2020, arXiv:2001.06782).

    Args:
        step: Both gradients.
    """
    # (u − a·r) + (r − b·u) = (1 − b)·u + (1 − a)·r
    of_retention = 1 - conflict(step.unlearn, step.retention)
    of_unlearn = 1 - conflict(step.retention, step.unlearn)
    return added(step.unlearn, step.retention, of_one=of_unlearn, of_other=of_retention)
