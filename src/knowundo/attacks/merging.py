"""Merging: what was unlearned beside one base, put on another finetune of it."""

from __future__ import annotations

from pathlib import Path

import torch

from knowundo.attacked import Attacked
from knowundo.errors import BadInput
from knowundo.modeling.base_weights import merged_base
from knowundo.modeling.weights import full_state
from knowundo.registry import attack


@attack(changes="weights")
def merging(attacked: Attacked, *, model: str) -> None:
    """Add what the variant changed of the base to another finetune of the same base.

    Task arithmetic (Ilharco et al. 2023, arXiv:2212.04089): other + (variant - base). Adapters are
    used so in practice, and whether unlearning outlives it is not said by scores beside its own
    base.

    Args:
        attacked: The model.
        model: Folder of the other finetune, with all of its weights.

    Raises:
        BadInput: The folder holds no whole model, or one that is no finetune of this base.
    """
    folder, own = Path(model), attacked.model
    if not folder.is_dir():
        raise BadInput(f"attack merging: {folder}: no such folder; name a whole model's")
    other = full_state(own, folder)
    with merged_base(own) as merged, torch.no_grad():
        for name, weight in merged.weights.items():
            if name not in other or other[name].shape != weight.shape:
                raise BadInput(
                    f"attack merging: {folder}: {name} is missing or of another shape; name a "
                    f"finetune of base '{own.base}'"
                )
        for name, weight in merged.weights.items():
            weight.add_(other[name].to(weight) - merged.before[name].to(weight))
        attacked.score(folder.resolve().name)
