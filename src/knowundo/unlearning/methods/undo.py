"""UNDO: the unlearned model, distilled into a damaged copy of itself."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat

from knowundo.errors import BadInput
from knowundo.modeling.half import Columns
from knowundo.modeling.step import Parts, Step
from knowundo.registry import method
from knowundo.unlearning.retention_terms import divergence_from_memorized

Share = Annotated[float, Field(gt=0, le=1)]


@method(reads=("retention", "reference"))
def undo(step: Step, *, shrink: Share = 0.25, noise: NonNegativeFloat = 0.0) -> Parts:
    """KL(unlearned ‖ current) on retention rows, from (1 − shrink)·weights + shrink·noise·N.

    A step after another method (`then`): what that one only hid does not come back by a little
    training, as damage removes it and distillation on other rows does not teach it again. Lee et
    al. 2025, arXiv:2506.06278. N has the variance of Xavier initialization, and is 0 for what is no
    matrix. Of a LoRA only the B matrices are damaged, in which its weights are linear, so that
    shrink 1 without noise is the base. Without a method before it,
    the memorized model is distilled.

    Args:
        step: The step.
        shrink: Share of the weights that is lost. The authors take 0.25, and try up to 0.7.
        noise: Scale of the noise in place of them. The authors take 0 for large models, 0.1 for
            small ones.
    """
    return {"retention": step.retention.mean(divergence_from_memorized(step))}


@undo.begin
def damaged(
    weights: Mapping[str, torch.Tensor], columns: Columns, seed: int, *, shrink: float, noise: float
) -> dict[str, torch.Tensor]:
    """Weights to begin with, by name.

    Raises:
        BadInput: The region has no weights that can be damaged.
    """
    if any("lora_magnitude" in name for name in weights):
        raise BadInput("method undo: weights are not linear in a DoRA; train a plain LoRA")
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, value in weights.items():
        if "lora_A" in name or "lora_embedding_A" in name:
            continue
        found[name] = (1 - shrink) * value
        if noise and value.ndim > 1:
            drawn = torch.randn(value.shape, generator=generator)
            spread = sqrt(2 / (value.shape[0] + value.shape[1]))
            found[name] += (shrink * noise * spread * drawn).to(value.dtype)
    if not found:
        raise BadInput("method undo: the region has no B matrix of a LoRA; take another region")
    return found
