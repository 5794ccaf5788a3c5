"""How far memorizing moved the weights."""

from __future__ import annotations

import torch

from knowundo.localization.tensors import TensorView
from knowundo.registry import localizer


@localizer(needs=("weights", "base"))
def weight_change(tensor: TensorView) -> torch.Tensor:
    """Mean |memorized − base|: how far memorizing moved the weights, for either scope.

    The task vector of Ilharco et al. 2023, arXiv:2212.04089, as a score. Of an adapter that was
    not memorized in this run, A is compared with fresh random numbers.

    Args:
        tensor: With its weights before and after.
    """
    return tensor.pool(tensor.change.abs())
