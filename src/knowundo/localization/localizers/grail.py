"""GRAIL's overlap of weights that matter for both scopes."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from knowundo.localization.tensors import TensorView
from knowundo.registry import localizer


@localizer(needs=("gradients",))
def grail(tensor: TensorView, *, top: Annotated[float, Field(gt=0, lt=1)] = 0.1) -> torch.Tensor:
    """Share of weights that matter for unlearning and not for retention.

    A weight matters for a scope if |z| of its gradient, standardized within the tensor, is among
    the highest `top` of the tensor. Kim et al. 2025 (GRAIL), arXiv:2504.12681, freeze what matters
    for both in the steps that unlearn; of one domain there is one such set.

    Args:
        tensor: With its gradients.
        top: Share of a tensor's weights that matter for a scope.
    """

    def matters(gradient: torch.Tensor) -> torch.Tensor:
        distance = (gradient - gradient.mean()).abs().flatten()
        chosen = torch.zeros_like(distance)
        chosen[distance.topk(max(1, round(top * len(distance)))).indices] = 1
        return chosen.view_as(gradient)

    unlearn, retention = (matters(scope.gradient) for scope in (tensor.unlearn, tensor.retention))
    return tensor.pool(unlearn * (1 - retention))
