"""SNIP's connection sensitivity on the unlearn scope."""

from __future__ import annotations

import torch

from knowundo.localization.tensors import TensorView
from knowundo.registry import localizer


@localizer(needs=("gradients", "weights"))
def snip(tensor: TensorView) -> torch.Tensor:
    """Mean |g_unlearn · w|: how much the unlearn loss would change without the weights.

    To first order; Lee et al. 2019 (SNIP), arXiv:1810.02340, prune by it.

    Args:
        tensor: With gradients and weights.
    """
    return tensor.pool((tensor.unlearn.gradient * tensor.weights).abs())
