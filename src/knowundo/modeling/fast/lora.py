"""One linear layer with a LoRA beside it, in the order of products that costs least.

y = x·Wᵀ + bias + s·(x·Aᵀ)·Bᵀ (Hu et al. 2021, arXiv:2106.09685). peft leaves it to autograd, whose
products with the few columns of A and B took 15 to 17 % of a training step on a CPU. For scoring,
several LoRAs beside the layer at once: `batched`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.autograd.function import once_differentiable

from knowundo.modeling.fast.linear import plain, product


def _output(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    down: torch.Tensor,
    up: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer on rows of tokens, and A·xᵀ.

    What has the LoRA's rank as one side is held with the rank first, [rank, tokens]: on a CPU, BLAS
    makes a matrix of few rows in a quarter to all of the time of one of few columns.

    Args:
        x: the rows, [tokens, in].
        weight: W, [out, in].
        bias: of the base layer.
        down: A, [rank, in].
        up: B, [out, rank].
        scale: s.
    """
    hidden = down @ x.T
    return product(x, weight, bias).addmm_(hidden.T, up.T, alpha=scale), hidden


class _Adapted(torch.autograd.Function):
    """The same with gradients of x, A and B, as far as they are wanted; W and bias get none."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
        """Hold what the gradients that are wanted need, and nothing else."""
        x, weight, bias, down, up, ctx.scale = inputs
        ctx.trained = down.dtype
        down, up = down.to(x.dtype), up.to(x.dtype)
        output, hidden = _output(x, weight, bias, down, up, ctx.scale)
        of_x, _, _, of_down, of_up, _ = ctx.needs_input_grad
        ctx.save_for_backward(
            x if of_down else None,
            hidden if of_up else None,
            weight if of_x else None,
            down if of_x else None,
            up if of_x or of_down else None,
        )
        return output

    # A gradient of these gradients would miss what flows through hidden, which is no input.
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_x, _, _, of_down, of_up, _ = ctx.needs_input_grad
        x, hidden, weight, down, up = ctx.saved_tensors
        (gradient,) = gradients
        x_gradient = down_gradient = up_gradient = None
        if of_up:
            up_gradient = ((hidden * ctx.scale) @ gradient).T.contiguous().to(ctx.trained)
        if of_x or of_down:
            hidden_gradient = (up.T @ gradient.T).mul_(ctx.scale)
        if of_down:
            down_gradient = (hidden_gradient @ x).to(ctx.trained)
        if of_x:
            x_gradient = (gradient @ weight).addmm_(hidden_gradient.T, down)
        return x_gradient, None, None, down_gradient, up_gradient, None


def _parts(layer: Linear, x: torch.Tensor) -> tuple[Any, Any, Any, float] | None:
    """W's, A's and B's layer and s, if there is nothing else to the layer for this input.

    Beside weights of bfloat16, peft casts x to float32, adds, and casts the sum back. Here A and B
    are cast, as under autocast: what they add is rounded as the sum is anyway.
    """
    if layer.disable_adapters or layer.merged or torch.is_autocast_enabled(x.device.type):
        return None
    downs = layer.lora_A
    names = [name for name in layer.active_adapters if name in downs]
    if len(names) != 1 or names[0] in layer.lora_variant:
        return None
    (name,) = names
    base, down, up = layer.base_layer, downs[name], layer.lora_B[name]
    if not (plain(base) and plain(down) and plain(up)):
        return None
    if type(layer.lora_dropout[name]) is not torch.nn.Identity or up.bias is not None:
        return None
    weight, bias, dtype = base.weight, base.bias, x.dtype
    if not (dtype.is_floating_point and weight.dtype == dtype):
        return None
    kinds = {down.weight.dtype, up.weight.dtype}
    if kinds != {dtype} and not (dtype == torch.bfloat16 and kinds == {torch.float32}):
        return None
    trained = weight.requires_grad or (bias is not None and bias.requires_grad)
    if trained and torch.is_grad_enabled():
        return None
    return base, down, up, layer.scaling[name]


@dataclass
class _Batched:
    """The LoRAs of several adapters beside one layer."""

    down: torch.Tensor  # [adapters, rank, in]
    up: torch.Tensor  # [adapters, out, rank]
    scale: float

    def output(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        """The layer on rows of tokens, [adapters · rows, in]: each adapter on its own rows."""
        if torch.is_grad_enabled():
            raise RuntimeError("batched adapters have no gradients; use torch.no_grad()")
        output = product(x, layer.weight, layer.bias) if plain(layer) else layer(x)
        hidden = self.down @ x.view(len(self.down), -1, x.shape[-1]).mT
        output.view(len(self.up), -1, output.shape[-1]).baddbmm_(
            hidden.mT, self.up.mT, alpha=self.scale
        )
        return output


def _forward(
    layer: Linear, otherwise: Callable[..., torch.Tensor], x: torch.Tensor, *args: Any, **rest: Any
) -> torch.Tensor:
    """What peft computes, which may put adapters off, merge or swap them between two calls."""
    if (several := vars(layer).get("batched")) is not None:
        output = several.output(layer.base_layer, x.reshape(-1, x.shape[-1]))
        return output.view(*x.shape[:-1], output.shape[-1])
    parts = None if args or rest else _parts(layer, x)
    if parts is None:
        return otherwise(x, *args, **rest)
    base, down, up, scale = parts
    rows = x.reshape(-1, x.shape[-1])
    tensors = rows, base.weight, base.bias, down.weight, up.weight, scale
    if torch.is_grad_enabled():
        output = _Adapted.apply(*tensors)
    else:
        down, up = down.weight.to(x.dtype), up.weight.to(x.dtype)
        output, _ = _output(rows, base.weight, base.bias, down, up, scale)
    return output.view(*x.shape[:-1], output.shape[-1])


def fuse(net: torch.nn.Module) -> None:
    """Compute the linear layers of a net that have a LoRA in the cheap order.

    A call that is more than that (adapters off or merged, dropout, autocast, a base of 4 bits,
    gradients of the base's weights) is peft's own, as before.
    """
    for layer in net.modules():
        if type(layer) is Linear and "forward" not in vars(layer):
            layer.forward = partial(_forward, layer, layer.forward)  # type: ignore[method-assign]


def _is_ours(layer: torch.nn.Module) -> bool:
    """True if `fuse` was here."""
    forward = vars(layer).get("forward")
    return isinstance(forward, partial) and forward.func is _forward


def all_linear(net: torch.nn.Module) -> bool:
    """True if `batched` can do it: every adapted layer of a net is a linear one that was fused."""
    layers = [layer for layer in net.modules() if isinstance(layer, BaseTunerLayer)]
    return bool(layers) and all(map(_is_ours, layers))


@contextmanager
def batched(net: torch.nn.Module, states: Sequence[Mapping[str, torch.Tensor]]) -> Iterator[None]:
    """Within it, a forward is that of several adapters, each on an equal share of the rows.

    The first share is the first adapter's, and so on; no gradients. The base's weights are read
    once for all of them, which is what a product of few rows waits for.

    Args:
        net: one that is `all_linear`, with an adapter of the same shape.
        states: the tensors of each adapter, by the name of the parameter that they stand in for.
    """
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, Linear)}
    try:
        for name, layer in layers.items():
            (own,), weight = layer.active_adapters, cast("torch.Tensor", layer.base_layer.weight)
            down, up = (
                torch.stack([state[f"{name}.lora_{part}.{own}.weight"] for state in states])
                for part in "AB"
            )
            several = _Batched(down.to(weight), up.to(weight), layer.scaling[own])
            vars(layer)["batched"] = several
        yield
    finally:
        for layer in layers.values():
            vars(layer).pop("batched", None)


@contextmanager
def one_adapter(net: torch.nn.Module) -> Iterator[None]:
    """Within it, a net whose adapters are `batched` has only its own again.

    Args:
        net: One with batched adapters, or without.
    """
    several = {m: vars(m).pop("batched") for m in net.modules() if "batched" in vars(m)}
    try:
        yield
    finally:
        for layer, own in several.items():
            vars(layer)["batched"] = own
