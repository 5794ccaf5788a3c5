"""Copies of a network's modules that share its tensors, or have tensors without numbers."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch


def shared_copy(net: Any) -> Any:
    """The modules once more, over the same weights: no memory is taken for them.

    Adapters, hooks and `requires_grad` of the copy do not reach the original. Whoever writes into a
    weight of the copy changes the original too. Buffers are copied: some models write into theirs.

    Args:
        net: Any module; not changed.
    """
    return _copied(net, torch.Tensor.detach)


def meta_copy(net: Any) -> Any:
    """The modules once more, with parameters on the device `meta`: shapes and dtypes only.

    Args:
        net: Any module; not changed.
    """
    return _copied(net, lambda tensor: torch.empty_like(tensor, device="meta")).to("meta")


def _copied(net: Any, make: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A deep copy in which `make` gives the parameters.

    A parameter of a subclass, such as bitsandbytes' 4-bit weights, carries more than its tensor:
    it copies itself.
    """
    memo: dict[int, Any] = {
        id(parameter): torch.nn.Parameter(make(parameter), requires_grad=parameter.requires_grad)
        for parameter in net.parameters()
        if type(parameter) is torch.nn.Parameter
    }
    return deepcopy(net, memo)
