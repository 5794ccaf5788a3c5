"""WAGLE's weight attribution."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat

from knowundo.localization.tensors import TensorView
from knowundo.registry import localizer


@localizer(needs=("gradients", "weights"))
def wagle(tensor: TensorView, *, gamma: PositiveFloat = 1.0) -> torch.Tensor:
    """Mean |(w − g_retention / gamma) · g_unlearn|: SNIP's score after a step for retention.

    Jia et al. 2024 (WAGLE), arXiv:2410.17509: weights that matter for unlearning, given that
    retention answers with a step of its own.

    Args:
        tensor: With gradients and weights.
        gamma: Curvature of the retention loss, the same for all weights.
    """
    moved = tensor.weights - tensor.retention.gradient / gamma
    return tensor.pool((moved * tensor.unlearn.gradient).abs())
