"""The ratio of the Fisher information of both scopes."""

from __future__ import annotations

import torch

from knowundo.localization.tensors import TensorView
from knowundo.registry import localizer


@localizer(needs=("squares",))
def fisher_ratio(tensor: TensorView) -> torch.Tensor:
    """E[g_unlearn²] / E[g_retention²], each summed over a unit's weights.

    The squares are of single rows, so that rows with opposite gradients do not cancel. Cha et al.
    2025 (LoKU), arXiv:2408.06621, rank weights by the ratio for where a LoRA begins; Foster et al.
    2024, arXiv:2308.07707, dampen weights by it.

    Args:
        tensor: With the mean squared gradients.
    """
    unlearn, retention = tensor.pool(tensor.unlearn.squares), tensor.pool(tensor.retention.squares)
    # Where retention does not depend on a unit at all the ratio is very high, and finite.
    return unlearn / retention.clamp_min(torch.finfo(retention.dtype).tiny).maximum(1e-12 * unlearn)
