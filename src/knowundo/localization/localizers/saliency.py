"""SalUn's weight saliency."""

from __future__ import annotations

import torch

from knowundo.localization.tensors import TensorView
from knowundo.registry import localizer


@localizer(needs=("gradients",))
def saliency(tensor: TensorView) -> torch.Tensor:
    """Mean |g_unlearn|: how much the unlearn loss depends on the weights.

    Fan et al. 2024 (SalUn), arXiv:2310.12508, mask single weights by this magnitude. What
    retention depends on is not looked at.

    Args:
        tensor: With its gradients.
    """
    return tensor.pool(tensor.unlearn.gradient.abs())
