"""Training in bfloat16 of parameters that are stored in a better precision.

What is trained has 8 bits of mantissa throughout: each micro-batch's gradient, their sum, AdamW's
moments and every updated parameter are rounded. Updates smaller than half of the last bit are lost,
which at small learning rates is most of them. It is what training a LoRA of bfloat16 without a
float32 copy does, as KnowUnDo's scripts do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


def rounded(value: torch.Tensor) -> torch.Tensor:
    """Return the nearest numbers that bfloat16 has, in the tensor's own precision."""
    return value.to(torch.bfloat16).to(value.dtype)


class BFloat16AdamW(torch.optim.AdamW):
    """AdamW that computes each step in bfloat16, its moments included.

    Between two steps the parameters have the precision that they were given in, with numbers that
    bfloat16 has, so that nothing else needs to know.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step.

        Args:
            closure: As for AdamW.

        Returns:
            What the closure returns.
        """
        chosen = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        before = [(parameter, parameter.data, parameter.grad) for parameter in chosen]
        for parameter, value, gradient in before:
            parameter.grad = None  # a gradient has its parameter's type
            parameter.data = value.to(torch.bfloat16)
            parameter.grad = gradient.to(torch.bfloat16)
            state = self.state[parameter]
            for name in ("exp_avg", "exp_avg_sq"):
                # torch converts moments to the parameter's own type when it reads a checkpoint.
                if name in state:
                    state[name] = state[name].to(torch.bfloat16)
        try:
            return super().step(closure)
        finally:
            for parameter, value, gradient in before:
                # In place: others (a snapshot, the model's own table) refer to this tensor.
                value.copy_(parameter.data)
                parameter.grad = None
                parameter.data = value
                parameter.grad = gradient


@contextmanager
def rounded_gradients(parameters: Iterable[torch.nn.Parameter]) -> Iterator[None]:
    """Within it, gradients and their sums over micro-batches are rounded to bfloat16."""

    def round_sum(parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            parameter.grad.copy_(rounded(parameter.grad))

    hooks: list[Any] = []
    try:
        for parameter in parameters:
            hooks.append(parameter.register_hook(rounded))
            hooks.append(parameter.register_post_accumulate_grad_hook(round_sum))
        yield
    finally:
        for hook in hooks:
            hook.remove()
