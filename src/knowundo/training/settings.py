"""What training is told: settings that change the result, and hooks of the stage that trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from knowundo.training.resumable import Resumable
from knowundo.training.separate_gradients import Combination

# Batch, and the most rows that a micro-batch may have (`None`: no limit) → its micro-batches, whose
# losses add up to the loss of the batch.
Split = Callable[[Any, int | None], list[Any]]


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one training.

    Attributes:
        lr: Peak learning rate.
        seed: Seed of everything random in the training loop.
        accumulation: Batches per optimizer step; the mean of their gradients is applied.
        schedule: transformers' name of the learning-rate schedule.
        warmup: Share of the optimizer steps over which the rate rises, see `warmup_steps`.
        weight_decay: Decoupled weight decay of AdamW.
        max_grad_norm: Gradients are clipped to this norm.
        optimizer: `adamw`, `paged_adamw_32bit` or `adamw_bfloat16`, see `make_optimizer`.
    """

    lr: float
    seed: int
    accumulation: int = 1
    schedule: str = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    optimizer: str = "adamw"


@dataclass(frozen=True)
class TrainingHooks:
    """What a stage adds to the training loop.

    Attributes:
        stop: Asked after each optimizer step; `True` ends training. If `None`, all batches are
            trained on.
        resumable: Whatever else `loss` and `stop` depend on, so that a resumed training continues
            to the same bits.
        split: Splits a batch into micro-batches. If `None`, they have as many tokens as the model
            takes at a time.
        after_step: Called after each optimizer step, before `stop`, with the parts of its loss over
            the whole batch.
        masks: Which weights of a tensor may change, by parameter name: booleans in its shape. All
            may of tensors without a mask.
        combination: Makes one gradient of those of several losses. If `None`, the parts of the
            loss are added, and there is one backward pass.
    """

    stop: Callable[[], bool] | None = None
    resumable: Sequence[Resumable] = ()
    split: Split | None = None
    combination: Combination | None = None
    after_step: Callable[[Mapping[str, float]], None] | None = None
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict)
