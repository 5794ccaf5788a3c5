"""Numbers of each answer token from its logits, a portion of the tokens at a time.

Logits over a vocabulary of 32,000 take 128 KB a token, and their softmax and gradients three times
as much again. Each token's number depends on its own hidden state alone, so its gradient can be
taken at once and the logits let go: nothing of the vocabulary's size is kept for the backward pass,
and no product is computed twice. (Liger's fused linear cross-entropy does so for one loss, Hsu et
al. 2024, arXiv:2410.10989.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

# Numbers of a portion's logits, 16 MiB of float32; and tokens that it has at least, since a product
# of fewer reads the head's weights for little.
PORTION, LEAST = 2**22, 32

# Hidden states [tokens, hidden] and what belongs to each token → numbers by token, [tokens] each;
# gradients reach the states through the first of them only.
Function = Callable[..., tuple[torch.Tensor, ...]]


def full_precision(logits: torch.Tensor) -> torch.Tensor:
    """Float32 or better: no loss is computed in half precision."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def portion(vocabulary: int) -> int:
    """Tokens at a time."""
    return max(LEAST, PORTION // vocabulary)


def _portions(
    size: int, states: torch.Tensor, given: Sequence[torch.Tensor]
) -> list[tuple[torch.Tensor, ...]]:
    return list(zip(states.split(size), *(one.split(size) for one in given), strict=True))


class _EagerGradient(torch.autograd.Function):
    """`function` portion by portion; each token's gradient is taken in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, function: Function, size: int, *given: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        found, gradients = [], []
        for part, *rest in _portions(size, states, given):
            # A graph of one portion only: it is freed before the logits of the next are made.
            with torch.enable_grad():
                leaf = part.detach().requires_grad_()
                value, *others = function(leaf, *rest)
                (gradient,) = torch.autograd.grad(value.sum(), leaf)
            found.append((value.detach(), *others))
            gradients.append(gradient)
        ctx.save_for_backward(torch.cat(gradients))
        first, *others = (torch.cat(parts) for parts in zip(*found, strict=True))
        ctx.mark_non_differentiable(*others)
        return first, *others

    @staticmethod
    def backward(ctx: Any, grown: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors
        # Tokens do not depend on each other, so the chain rule is one factor per token.
        nothing = [None] * (len(ctx.needs_input_grad) - 1)
        return (grown[:, None] * gradients).to(gradients.dtype), *nothing


def by_token(
    states: torch.Tensor,
    function: Function,
    *given: torch.Tensor,
    size: int,
    frozen: bool,
) -> tuple[torch.Tensor, ...]:
    """What `function` makes of each token, [tokens] each, from a portion of the states at a time.

    Args:
        states: hidden states, [tokens, hidden].
        function: takes a portion of the states and of `given`.
        given: [tokens, …] each, without gradients.
        size: tokens at a time.
        frozen: gradients go to the states alone. Otherwise (a head that is trained) a portion is
            computed again in the backward pass.
    """
    if states.requires_grad and frozen and torch.is_grad_enabled():
        made: tuple[torch.Tensor, ...] = _EagerGradient.apply(states, function, size, *given)
        return made
    parts = _portions(size, states, given)
    # A trained head needs gradients of its weights, summed over all portions: autograd does that,
    # and checkpointing keeps it from holding the logits of every portion until then.
    if len(parts) > 1 and torch.is_grad_enabled():
        found = [checkpoint(function, *part, use_reentrant=False) for part in parts]
    else:
        found = [function(*part) for part in parts]
    return tuple(torch.cat(one) for one in zip(*found, strict=True))
