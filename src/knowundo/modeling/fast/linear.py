"""Products with a weight matrix, in the shape that a CPU's BLAS makes fastest.

In float32, a matrix of few rows and many columns is made at a half to two thirds of the rate of its
transpose (tokens that are generated one by one), and one of tens of thousands of columns at two
thirds of the rate of a narrow one (logits). In bfloat16 the differences are small, and left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn.functional import linear

# Rows up to which the transpose is made, if there are two or more; numbers of a weight from which
# any of this is worth a call; columns that are made at once.
FEW, LARGE, STRIPE = 64, 2**19, 2048


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x·Wᵀ + bias, without gradients.

    Args:
        x: [rows, in].
        weight: W, [out, in].
        bias: [out]. If `None`, zero.
    """
    quick = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if not quick or weight.numel() < LARGE or len(x) < 2:
        return linear(x, weight, bias)
    if len(x) <= FEW:
        output = (weight @ x.T).T.contiguous()
    elif len(weight) > 2 * STRIPE:
        output = x.new_empty(len(x), len(weight))
        for into, part in zip(output.split(STRIPE, dim=1), weight.split(STRIPE), strict=True):
            torch.mm(x, part.T, out=into)
    else:
        return linear(x, weight, bias)
    return output if bias is None else output.add_(bias)


class _Frozen(torch.autograd.Function):
    """The same with a gradient of x; W and bias get none."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0] @ weight, None, None


def _forward(
    layer: torch.nn.Linear, otherwise: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    """What torch's layer computes."""
    weight, bias, recorded = layer.weight, layer.bias, torch.is_grad_enabled()
    trained = weight.requires_grad or (bias is not None and bias.requires_grad)
    if x.dtype != weight.dtype or (trained and recorded) or torch.is_autocast_enabled("cpu"):
        return otherwise(x)
    rows = x.reshape(-1, x.shape[-1])
    output: torch.Tensor
    if recorded and x.requires_grad:
        output = _Frozen.apply(rows, weight, bias)
    else:
        output = product(rows, weight, bias)
    return output.view(*x.shape[:-1], output.shape[-1])


def _ours(layer: torch.nn.Module) -> bool:
    """True if `quicken` was here."""
    forward = vars(layer).get("forward")
    return isinstance(forward, partial) and forward.func is _forward


def plain(layer: torch.nn.Module) -> bool:
    """True for torch's own linear layer, to which nobody listens."""
    return type(layer) is torch.nn.Linear and not (
        ("forward" in vars(layer) and not _ours(layer))
        or layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
    )


def quicken(net: torch.nn.Module) -> None:
    """Let the linear layers of a net on a CPU, but for adapted ones, use `product`."""
    layers = list(net.modules())
    adapted = [layer for layer in layers if isinstance(layer, BaseTunerLayer)]
    inner = {id(part) for layer in adapted for part in layer.modules()}
    for layer in layers:
        if type(layer) is not torch.nn.Linear or id(layer) in inner or "forward" in vars(layer):
            continue
        if layer.weight.numel() >= LARGE and layer.weight.device.type == "cpu":
            layer.forward = partial(_forward, layer, layer.forward)  # type: ignore[method-assign]
