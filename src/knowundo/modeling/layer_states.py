"""Hidden states after a decoder layer: a forward that ends there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from knowundo.errors import BadInput
from knowundo.modeling.fast.prefix_cache import layers_of

if TYPE_CHECKING:
    from knowundo.modeling.model import Model


class _Reached(Exception):
    """The layer has returned its hidden states."""


def after_layer(
    model: Model, layer: int | None, compute: Callable[[], torch.Tensor]
) -> torch.Tensor:
    """Hidden states as a decoder layer returns them; the layers above it do not run.

    Args:
        model: Not changed.
        layer: Number of the layer, from 0. If `None`, `compute` runs to its end.
        compute: Runs the decoder once, on [sequences, tokens].

    Returns:
        [sequences, tokens, hidden]; what `compute` returns if there is no layer.

    Raises:
        BadInput: The model has no such layer, or the layer returns something else.
    """
    if layer is None:
        return compute()
    layers = layers_of(model)
    if not 0 <= layer < len(layers):
        there = f"it has the layers 0 to {len(layers) - 1}" if layers else "no layers were found"
        raise BadInput(f"model.base '{model.base}': no layer {layer}; {there}, choose another")
    found = list[torch.Tensor]()

    def take(_: Any, __: Any, output: Any) -> None:
        found.append(output if isinstance(output, torch.Tensor) else output[0])
        raise _Reached  # the layers above would be computed for nothing

    hook = layers[layer].register_forward_hook(take)
    try:
        with suppress(_Reached):
            compute()
    finally:
        hook.remove()
    if len(found) != 1 or found[0].ndim != 3:
        raise BadInput(
            f"model.base '{model.base}': layer {layer} does not return hidden states of "
            "[sequences, tokens, hidden]; choose a method that reads no layer"
        )
    return found[0]
