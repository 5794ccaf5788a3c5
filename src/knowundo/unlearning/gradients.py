"""How the gradients of unlearning and of retention become one.

A method names the parts of its loss. The gradient of the part `unlearn` and that of all other parts
together are accumulated over the whole batch of an optimizer step, combined, and then clipped. Both
are one vector over all parameters of the region: whether they conflict is decided once for the
region, not by tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import torch

from knowundo.errors import BadInput, unknown
from knowundo.modeling.fast.chunked_logits import full_precision
from knowundo.modeling.step import Parts
from knowundo.training.separate_gradients import Combination, Gradients

Mode = Literal["sum", "project", "conflict-free"]


def combination(mode: str, method: str) -> Combination | None:
    """What combines the gradients of a method's parts.

    Args:
        mode: `sum`, `project` or `conflict-free`, see `Projection`.
        method: Name of the method, for messages.

    Returns:
        `None` for `sum`: the parts are added before one backward pass.

    Raises:
        BadInput: There is no such mode.
    """
    if mode not in get_args(Mode):
        raise unknown("gradients", mode, get_args(Mode))
    return None if mode == "sum" else Projection(cast("Mode", mode), method)


class Projection:
    """Removes from a gradient its component against another one, if their product is negative.

    `project`: from the gradient of `unlearn`, against that of retention, which stays as it is. To
    first order a step then does not raise the retention parts (GRU, Wang et al. 2025,
    arXiv:2503.09117, without its moving average of the retention gradient).

    `conflict-free`: from both, each against the other as it was (PCGrad, Yu et al. 2020,
    arXiv:2001.06782). Their sum then has no negative product with either.
    """

    def __init__(self, mode: Mode, method: str) -> None:
        """Combine nothing yet.

        Args:
            mode: `project` or `conflict-free`.
            method: Name of the method, for messages.
        """
        self.mode, self.method = mode, method

    def losses(self, parts: Parts) -> Sequence[torch.Tensor]:
        """The part `unlearn`, and the sum of all others.

        Raises:
            BadInput: One of them is missing.
        """
        others = [part for name, part in parts.items() if name != "unlearn"]
        if "unlearn" not in parts or not others:
            named = ", ".join(parts)
            raise BadInput(
                f"gradients {self.mode}: the loss of {self.method} has the parts: {named}; it "
                "takes 'unlearn' and another one: give retention a weight, or take gradients sum"
            )
        return parts["unlearn"], torch.stack(others).sum()

    def combine(self, gradients: Sequence[Gradients]) -> Gradients:
        """One gradient, from those of unlearning and of retention, in the place of one of them."""
        unlearn, retention = gradients
        both = [
            (one, other)
            for one, other in zip(unlearn, retention, strict=True)
            if one is not None and other is not None
        ]
        keeps: tuple[Any, Any] = 1.0, 1.0
        if both:
            product = _product(both)
            # (u − a·r) + (r − b·u) = (1 − b)·u + (1 − a)·r
            of_retention = 1 - _excess(product, _squares(retention))
            conflict_free = self.mode == "conflict-free"
            of_unlearn = 1 - _excess(product, _squares(unlearn)) if conflict_free else 1.0
            keeps = of_unlearn, of_retention
        return [_sum(u, r, *keeps) for u, r in zip(unlearn, retention, strict=True)]


def _product(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Inner product of two vectors, of which these are the tensors, in float32 or better."""
    return torch.stack([(full_precision(a) * full_precision(b)).sum() for a, b in pairs]).sum()


def _squares(gradients: Gradients) -> torch.Tensor:
    return _product([(one, one) for one in gradients if one is not None])


def _excess(product: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """The factor of the vector that is subtracted: 0 unless the product is negative.

    Without a branch: a device would have to be waited for.
    """
    return torch.where(product < 0, product / squares, torch.zeros_like(product))


def _sum(
    one: torch.Tensor | None, other: torch.Tensor | None, of_one: Any, of_other: Any
) -> torch.Tensor | None:
    """of_one·one + of_other·other, in the place of one of them, computed in float32 or better."""
    if one is None:
        return None if other is None else other.copy_(of_other * full_precision(other))
    found = of_one * full_precision(one)
    if other is not None:
        found += of_other * full_precision(other)
    return one.copy_(found)
