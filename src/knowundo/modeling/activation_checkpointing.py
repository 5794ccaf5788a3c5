"""Activation checkpointing: the backward pass computes a layer again instead of holding it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from knowundo.errors import BadInput


def recompute_activations(net: Any, name: str) -> None:
    """Hold only the inputs of each layer, and compute the layer again in the backward pass.

    transformers' own switch does so in training mode only; localization takes gradients in
    evaluation mode, where there is no dropout.

    Args:
        net: A causal LM of transformers, changed in place.
        name: Of the base, for the error.

    Raises:
        BadInput: The architecture has no such layers.
    """
    layers = [m for m in net.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise BadInput(
            f"model.gradient_checkpointing: base '{name}' has no layers for it; say false"
        )
    for layer in layers:
        layer.forward = partial(_checkpointed, layer.forward)


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False)
