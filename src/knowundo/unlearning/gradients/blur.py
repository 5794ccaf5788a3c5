"""BLUR: unlearning first, retention within what unlearning leaves open."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat

from knowundo.registry import combination
from knowundo.training.separate_gradients import Gradients, StepGradients
from knowundo.unlearning.vectors import added, product, ratio, squares


@combination()
def blur(
    step: StepGradients,
    *,
    first: Literal["unlearn", "retention"] = "unlearn",
    gamma: PositiveFloat = 1.0,
) -> Gradients:
    """The retention gradient, with gamma·u in place of its component along the unlearn gradient u.

    r + (gamma − ⟨r, u⟩ / ⟨u, u⟩)·u: unlearning is the lower level, which comes first, and retention
    is the upper one. With `first: retention` they change places. Reisizadeh et al. 2025,
    arXiv:2506.08164. With NPO it is BLUR-NPO.

    Args:
        step: Both gradients.
        first: The gradient whose loss is minimised first (the lower level).
        gamma: How far a step descends along that gradient.
    """
    levels = step.unlearn, step.retention
    lower, upper = levels if first == "unlearn" else levels[::-1]
    of_lower = gamma - ratio(product(upper, lower), squares(lower))
    return added(upper, lower, of_other=of_lower)
