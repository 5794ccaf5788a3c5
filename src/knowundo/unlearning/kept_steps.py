"""Weights on the way of a training, kept so that they can be scored beside those at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from knowundo.modeling.model import Model
from knowundo.storage.checkpoints import State, prefixed, under


@dataclass
class Kept:
    """What training had changed after an optimizer step."""

    step: int
    seconds: float  # that training had taken until then
    state: dict[str, torch.Tensor]


class Keeper:
    """Copies what is trained after every so many optimizer steps, but not at the end."""

    def __init__(
        self,
        model: Model,
        names: Sequence[str],
        *,
        every: int,
        steps: int,
        seconds: Callable[[], float],
    ) -> None:
        """Nothing is kept yet.

        Args:
            model: the one that is trained.
            names: parameters that training changes.
            every: optimizer steps between two copies.
            steps: optimizer steps that training takes; what it ends with is no copy.
            seconds: tells how long training has taken so far.
        """
        self.model, self.names, self.every, self.steps = model, list(names), every, steps
        self._seconds = seconds
        self.step = 0
        self.kept: list[Kept] = []

    def after_step(self) -> None:
        """Called after each optimizer step."""
        self.step += 1
        if self.step % self.every == 0 and self.step < self.steps:
            state = self.model.state(self.names)
            self.kept.append(Kept(self.step, round(self._seconds(), 2), state))

    def carry(self) -> State:
        kept = [[one.step, one.seconds] for one in self.kept]
        state = State({"step": self.step, "kept": kept})
        for one in self.kept:
            state.tensors |= prefixed(str(one.step), one.state)
        return state

    def resume(self, state: State) -> None:
        self.step = state.facts["step"]
        self.kept = [
            Kept(step, seconds, under(str(step), state.tensors))
            for step, seconds in state.facts["kept"]
        ]

    def undo(self) -> None:
        """Nothing: it copies after whole steps only."""
