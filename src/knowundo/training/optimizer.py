"""Optimizers and the learning-rate warm-up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from knowundo.errors import BadInput
from knowundo.modeling.checks import need_bitsandbytes
from knowundo.training.bfloat16 import BFloat16AdamW


def make_optimizer(
    name: str, chosen: Sequence[torch.nn.Parameter], *, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW over the chosen parameters.

    Args:
        name: `adamw`, torch's own; `paged_adamw_32bit`, bitsandbytes' with a state of float32 that
            moves out of a full GPU; `adamw_bfloat16`, see `BFloat16AdamW`.
        chosen: Parameters on one device.
        lr: Learning rate.
        weight_decay: Decoupled weight decay.

    Raises:
        BadInput: There is no such optimizer, or it cannot run here.
    """
    if name == "adamw":
        return torch.optim.AdamW(chosen, lr=lr, weight_decay=weight_decay)
    if name == "adamw_bfloat16":
        return BFloat16AdamW(chosen, lr=lr, weight_decay=weight_decay)
    if name != "paged_adamw_32bit":
        raise BadInput(f"model.optimizer '{name}': say adamw or paged_adamw_32bit")
    if any(parameter.device.type == "cpu" for parameter in chosen):
        raise BadInput(f"model.optimizer {name}: pages a GPU's memory; on a CPU say adamw")
    need_bitsandbytes(f"model.optimizer {name}")
    from bitsandbytes.optim.adamw import PagedAdamW32bit

    paged: torch.optim.Optimizer = PagedAdamW32bit(chosen, lr=lr, weight_decay=weight_decay)
    return paged


def warmup_steps(share: float, steps: int) -> int:
    """Optimizer steps over which the learning rate rises from zero.

    ceil(share · steps), as transformers' `warmup_ratio` and KnowUnDo's scripts have it; but the
    last step is never one of them. The first step of a warm-up trains at a rate of zero, so that a
    run of a single step would train nothing.

    Args:
        share: Share of the steps, in [0, 1].
        steps: Optimizer steps of the training.

    Returns:
        A number from 0 to `steps` − 1; 0 if there are no steps.
    """
    return max(0, min(math.ceil(share * steps), steps - 1))
