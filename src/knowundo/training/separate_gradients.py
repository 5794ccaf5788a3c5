"""Gradients of several losses, accumulated apart until an optimizer step combines them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from knowundo.modeling.step import Parts

# Of each parameter; `None` where no gradient reaches it.
Gradients = list[torch.Tensor | None]


class Combination(Protocol):
    """Makes one gradient of the gradients of several losses."""

    def losses(self, parts: Parts) -> Sequence[torch.Tensor]:
        """The losses whose gradients are kept apart, from the parts of a micro-batch's loss."""

    def combine(self, gradients: Sequence[Gradients]) -> Gradients:
        """One gradient, from those of the losses in their order, over the whole batch.

        Tensors that are given may be changed and returned.
        """


class SeparateGradients:
    """Accumulates the gradient of each loss over the micro-batches of an optimizer step.

    That of the last loss is in `.grad` of the parameters, as that of a sum would be. Each further
    loss takes one more backward pass through the same graph, and memory for one more gradient.
    """

    def __init__(self, combination: Combination, chosen: Sequence[torch.nn.Parameter]) -> None:
        """Hold nothing yet.

        Args:
            combination: What makes one gradient of them.
            chosen: The parameters that are trained.
        """
        self.combination, self.chosen = combination, list(chosen)
        self._held: list[Gradients] = []  # of all losses but the last

    def backward_but_last(self, parts: Parts, share: float) -> torch.Tensor:
        """Run the backward pass of all losses but the last.

        Args:
            parts: Of a micro-batch's loss.
            share: What the losses are multiplied by, 1 / accumulation steps.

        Returns:
            The last loss, not multiplied, whose backward pass is left to the caller.
        """
        *others, last = self.combination.losses(parts)
        if not self._held:
            self._held = [[None] * len(self.chosen) for _ in others]
        of_last = self._swapped([None] * len(self.chosen))
        for number, loss in enumerate(others):
            self._swapped(self._held[number])
            # Through `.grad`: hooks on the parameters, such as rounding, see each of them.
            (share * loss).backward(retain_graph=True)
            self._held[number] = [parameter.grad for parameter in self.chosen]
        self._swapped(of_last)
        return last

    def _swapped(self, gradients: Gradients) -> Gradients:
        """Put these into `.grad` of the parameters, and return what was there."""
        before: Gradients = [parameter.grad for parameter in self.chosen]
        for parameter, gradient in zip(self.chosen, gradients, strict=True):
            parameter.grad = gradient
        return before

    @torch.no_grad()
    def combine(self) -> None:
        """Replace `.grad` of the parameters by the combined gradient; once an optimizer step."""
        last: Gradients = [parameter.grad for parameter in self.chosen]
        self._swapped(self.combination.combine([*self._held, last]))
        self.clear()

    def clear(self) -> None:
        """Discard what was accumulated, but for `.grad`."""
        self._held = []
