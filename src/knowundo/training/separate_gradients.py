"""Gradients of unlearning and of retention, kept apart until an optimizer step combines them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Protocol

import torch

from knowundo.distributed.sums import all_of_each, summed
from knowundo.modeling.step import Parts
from knowundo.storage.checkpoints import State

# Of each parameter; `None` where no gradient reaches it.
Gradients = list[torch.Tensor | None]


@dataclass
class StepGradients:
    """The gradients of an optimizer step, of its whole batch.

    A combination may change the tensors of `unlearn` and return them.

    Attributes:
        unlearn: Gradient of the part `unlearn`.
        retentions: Gradients that add up to that of all other parts: one, or one of each
            micro-batch. Empty where the loss has no other part.
        held: What was kept in the last step, by name. Empty in the first step.
        kept: What the combination keeps for the next step, by name.
        unlearn_at: Computes the gradient of the part `unlearn` once more, at the weights plus what
            is given; the weights are the same bits afterwards.
    """

    unlearn: Gradients
    retentions: Sequence[Gradients]
    held: dict[str, Gradients]
    unlearn_at: Callable[[Gradients], Gradients]
    kept: dict[str, Gradients] = field(default_factory=dict)

    @cached_property
    def retention(self) -> Gradients:
        """Gradient of all parts but `unlearn`."""
        if len(self.retentions) == 1:
            return self.retentions[0]
        total: Gradients = [None] * len(self.unlearn)
        for part in self.retentions:
            for number, one in enumerate(part):
                if one is not None:
                    before = total[number]
                    total[number] = one.clone() if before is None else before.add_(one)
        return total


class Combination(Protocol):
    """Makes one gradient of those of unlearning and of retention.

    Attributes:
        by_row: Whether the retention gradient of each micro-batch is kept apart.
    """

    by_row: bool

    def losses(self, parts: Parts) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The part `unlearn` and the sum of all others, if there are any."""

    def combine(self, step: StepGradients) -> Gradients:
        """One gradient, of those of the whole batch."""


class SeparateGradients:
    """Accumulates both gradients over the micro-batches of an optimizer step.

    That of unlearning is in `.grad` of the parameters, as that of a sum would be. That of retention
    takes one more backward pass through the same graph, and memory for one more gradient.

    Attributes:
        held: Gradients that the combination keeps from step to step, by name. Checkpoints have
            them.
        retentions: Retention gradients of the step in progress, see `StepGradients`.
    """

    def __init__(
        self,
        combination: Combination,
        chosen: Sequence[torch.nn.Parameter],
        clear: Callable[[], None] | None = None,
    ) -> None:
        """Hold nothing yet.

        Args:
            combination: What makes one gradient of them.
            chosen: The parameters that are trained.
            clear: Clears `.grad` of weights of these parameters that may not change, which then
                count in no inner product or length. If `None`, all may change.
        """
        self.combination, self.chosen, self._clear = combination, list(chosen), clear
        self.held: dict[str, Gradients] = {}
        self._kept: dict[str, Gradients] = {}
        self.retentions: list[Gradients] = []
        self._seen: list[tuple[Any, float]] = []  # micro-batches of the step, and their shares

    def backward_but_last(self, parts: Parts, share: float, batch: Any) -> torch.Tensor:
        """Run the backward pass of retention.

        Args:
            parts: Of a micro-batch's loss.
            share: What the losses are multiplied by, 1 / accumulation steps.
            batch: The micro-batch.

        Returns:
            The part `unlearn`, not multiplied, whose backward pass is left to the caller.
        """
        unlearn, others = self.combination.losses(parts)
        self._seen.append((batch, share))
        if others is None:
            return unlearn
        if self.combination.by_row or not self.retentions:
            self.retentions.append(self._none())
        of_unlearn = self._swapped(self.retentions[-1])
        # Through `.grad`: hooks on the parameters, such as rounding, see each of them.
        (share * others).backward(retain_graph=True)
        self.retentions[-1] = self._swapped(of_unlearn)
        return unlearn

    def _none(self) -> Gradients:
        return [None] * len(self.chosen)

    def _swapped(self, gradients: Gradients) -> Gradients:
        """Put these into `.grad` of the parameters, and return what was there."""
        before: Gradients = [parameter.grad for parameter in self.chosen]
        for parameter, gradient in zip(self.chosen, gradients, strict=True):
            parameter.grad = gradient
        return before

    def _cleared(self, gradients: Gradients) -> Gradients:
        """The same, where weights may change."""
        if self._clear is None:
            return gradients
        before = self._swapped(gradients)
        self._clear()
        return self._swapped(before)

    @torch.no_grad()
    def combine(self, loss: Callable[[Any], Parts]) -> None:
        """Replace `.grad` of the parameters by the combined gradient; once an optimizer step.

        Args:
            loss: Micro-batch → named parts, for combinations that compute it once more.
        """
        # `.grad` is that of all processes already.
        unlearn = self._cleared([parameter.grad for parameter in self.chosen])
        retentions = [self._cleared(one) for one in self._of_all_processes()]
        again = partial(self._unlearn_at, loss)
        step = StepGradients(unlearn, retentions, self.held, again)
        pairs = zip(self.combination.combine(step), self.chosen, strict=True)
        self._swapped([None if one is None else one.to(own.dtype) for one, own in pairs])
        self._kept = step.kept
        self._seen, self.retentions = [], []

    def _of_all_processes(self) -> list[Gradients]:
        """The step's retention gradients of all rows, whichever process took them."""
        if self.combination.by_row:
            return all_of_each(self.retentions, self.chosen)
        own = self.retentions[0] if self.retentions else self._none()
        return [one for one in [summed(own, self.chosen)] if self.retentions or _any(one)]

    def _unlearn_at(self, loss: Callable[[Any], Parts], shift: Gradients) -> Gradients:
        """The gradient of the part `unlearn` over the step's micro-batches, at other weights."""
        weights = [parameter.detach().clone() for parameter in self.chosen]
        before = self._swapped(self._none())
        try:
            for parameter, one in zip(self.chosen, shift, strict=True):
                if one is not None:
                    parameter.add_(one)
            for batch, share in self._seen:
                with torch.enable_grad():
                    unlearn, _ = self.combination.losses(loss(batch))
                    (share * unlearn).backward()
        finally:
            for parameter, weight in zip(self.chosen, weights, strict=True):
                parameter.copy_(weight)
            found = self._swapped(before)
        return self._cleared(summed(found, self.chosen))

    def after_step(self) -> None:
        """Hold what the combination kept, now that the step is complete."""
        self.held, self._kept = self.held | self._kept, {}

    def state_dict(self) -> State:
        """Return what is held, in the host's memory."""
        named = [(name, n, one) for name, held in self.held.items() for n, one in enumerate(held)]
        tensors = {f"{name}.{n}": one.detach().cpu() for name, n, one in named if one is not None}
        return State({"held": list(self.held)}, tensors)

    def load_state_dict(self, state: State) -> None:
        """Take over a state that `state_dict` returned."""
        self.held = {name: self._none() for name in state.facts["held"]}
        for key, value in state.tensors.items():
            name, number = key.rsplit(".", 1)
            self.held[name][int(number)] = value.to(self.chosen[int(number)].device)

    def rollback(self) -> None:
        """Discard the step in progress, but for `.grad`."""
        self._kept, self.retentions, self._seen = {}, [], []


def _any(gradients: Gradients) -> bool:
    return any(one is not None for one in gradients)
