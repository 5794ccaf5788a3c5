"""Unlearn and retention gradients of one length."""

from __future__ import annotations

from pydantic import PositiveFloat

from knowundo.registry import combination
from knowundo.training.separate_gradients import Gradients, StepGradients
from knowundo.unlearning.vectors import added, ratio, squares


@combination()
def balance(step: StepGradients, *, unlearn: PositiveFloat = 1.0) -> Gradients:
    """unlearn·(‖r‖/‖u‖)·u + r: the unlearn gradient u, as long as the retention gradient r.

    JensUn++ weights its loss on unlearn rows so. A weight of that loss has no effect then: give it
    here.

    Args:
        step: Both gradients.
        unlearn: Length of the unlearn gradient, in lengths of the retention gradient.
    """
    of_unlearn = unlearn * ratio(squares(step.retention), squares(step.unlearn)).sqrt()
    return added(step.unlearn, step.retention, of_one=of_unlearn)
