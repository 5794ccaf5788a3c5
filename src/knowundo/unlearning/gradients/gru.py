"""GRU: the unlearn gradient without what conflicts with retention, over several steps."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from knowundo.registry import combination
from knowundo.training.separate_gradients import Gradients, StepGradients
from knowundo.unlearning.vectors import added, conflict, scaled


@combination(holds=("average",))
def gru(step: StepGradients, *, weight: Annotated[float, Field(gt=0, le=1)] = 0.8) -> Gradients:
    """If the two conflict, the unlearn gradient loses its component against a moving average.

    The average is of the retention gradients of all steps so far: weight·(that of this step) +
    (1 − weight)·(the average of the step before), and that of the first step to begin with. The
    retention gradient itself is added as it is. Wang et al. 2025, arXiv:2503.09117.

    Args:
        step: Both gradients.
        weight: Weight of the newest retention gradient, as in the authors' code; 1 is `project`.
            The authors try 0.8, 0.9 and 0.95.
    """
    before = step.held.get("average")
    average = scaled(step.retention, 1.0 if before is None else weight)
    if before is not None:
        average = added(average, before, of_other=1 - weight)
    step.kept["average"] = average
    less = added(step.unlearn, average, of_other=-conflict(step.unlearn, average))
    return added(less, step.retention)
