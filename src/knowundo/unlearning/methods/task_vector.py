"""Task arithmetic: what training further on the unlearn rows adds is subtracted."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import PositiveFloat

from knowundo.modeling.step import Parts, Step
from knowundo.registry import method


@method(reads=("unlearn",))
def task_vector(step: Step, *, alpha: PositiveFloat = 1.0) -> Parts:
    """CE(unlearn) in training; then weights = memorized − alpha·(trained − memorized).

    The memorized model is trained further on the unlearn rows, and the difference is negated.
    Ilharco et al. 2023, arXiv:2212.04089. Of a LoRA only the B matrices are trained, so that the
    difference of parameters is one of weights. Early stopping and kept steps are of the model that
    is being trained, so they are refused.

    Args:
        step: The step.
        alpha: Scale of the difference. MUSE takes 5 after ten epochs at a rate of 1e-5.
    """
    return {"unlearn": step.unlearn.mean(step.unlearn.mean_nll)}


@task_vector.edit
def negated(
    memorized: Mapping[str, torch.Tensor], trained: Mapping[str, torch.Tensor], *, alpha: float
) -> dict[str, torch.Tensor]:
    """The memorized weights minus the scaled difference, by name."""
    return {name: value - alpha * (trained[name] - value) for name, value in memorized.items()}
