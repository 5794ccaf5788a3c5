"""SAM: the unlearn gradient at the worst weights nearby."""

from __future__ import annotations

from pydantic import PositiveFloat

from knowundo.registry import combination
from knowundo.training.separate_gradients import Gradients, StepGradients
from knowundo.unlearning.vectors import added, ratio, scaled, squares


@combination(retention=False)
def sam(step: StepGradients, *, rho: PositiveFloat = 0.01) -> Gradients:
    """The unlearn gradient at θ + rho·g/‖g‖, g the one at θ; plus the retention gradient at θ.

    A loss that is flat around the weights is said to resist relearning. Fan et al. 2025,
    arXiv:2502.05374, for NPO. It takes one more forward and backward pass over the whole batch, and
    memory for a copy of the region. In bfloat16 a small rho is lost by rounding.

    Args:
        step: Both gradients.
        rho: Length of the step to the worst weights. The authors take 0.01 on MUSE, 0.1 on WMDP.
    """
    norm = squares(step.unlearn).sqrt()
    there = step.unlearn_at(scaled(step.unlearn, ratio(rho * norm, norm * norm)))
    return added(there, step.retention)
