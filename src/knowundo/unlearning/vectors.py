"""Gradients of a region as vectors over all its parameters, in float32 or better.

A parameter that no gradient reaches counts as zeros.
"""

from __future__ import annotations

import torch

from knowundo.modeling.fast.chunked_logits import full_precision
from knowundo.training.separate_gradients import Gradients

Factor = float | torch.Tensor


def product(one: Gradients, other: Gradients) -> torch.Tensor:
    """Inner product of two vectors, a scalar."""
    sums = [
        (full_precision(a) * full_precision(b)).sum()
        for a, b in zip(one, other, strict=True)
        if a is not None and b is not None
    ]
    return torch.stack(sums).sum() if sums else torch.zeros(())


def squares(vector: Gradients) -> torch.Tensor:
    """Square of a vector's norm, a scalar."""
    return product(vector, vector)


def ratio(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """A quotient of scalars, 0 where the denominator is; without a branch, which would wait."""
    return torch.where(denominator == 0, torch.zeros_like(denominator), numerator / denominator)


def scaled(vector: Gradients, factor: Factor) -> Gradients:
    """A new vector, factor·vector."""
    return [None if one is None else factor * full_precision(one) for one in vector]


def added(
    one: Gradients, other: Gradients, *, of_one: Factor = 1.0, of_other: Factor = 1.0
) -> Gradients:
    """of_one·one + of_other·other, in the place of `one`."""
    return [_sum(a, b, of_one, of_other) for a, b in zip(one, other, strict=True)]


def conflict(one: Gradients, other: Gradients) -> torch.Tensor:
    """⟨one, other⟩ / ⟨other, other⟩ if the product is negative, else 0.

    `one` minus so much of `other` is orthogonal to `other`, if the two conflict.
    """
    found = product(one, other)
    return torch.where(found < 0, ratio(found, squares(other)), torch.zeros_like(found))


def _sum(
    one: torch.Tensor | None, other: torch.Tensor | None, of_one: Factor, of_other: Factor
) -> torch.Tensor | None:
    if one is None:
        return None if other is None else of_other * full_precision(other)
    found = of_one * full_precision(one)
    if other is not None:
        found += of_other * full_precision(other)
    return one.copy_(found)
