"""Weights at intermediate steps, kept so that they can be scored beside those at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from knowundo.modeling.model import Model
from knowundo.modeling.snapshots import Snapshot
from knowundo.storage.checkpoints import State, prefixed, under


@dataclass
class KeptStep:
    """The weights after an optimizer step.

    Attributes:
        step: Number of the step, from 1.
        seconds: Time that training had taken until then.
        weights: What training had changed.
    """

    step: int
    seconds: float
    weights: Snapshot

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """The weights by parameter name."""
        return self.weights.tensors


class StepKeeper:
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
        """Keep nothing yet.

        Args:
            model: The one that is trained.
            names: Parameters that training changes.
            every: Optimizer steps between two copies.
            steps: Optimizer steps that training takes; what it ends with is no copy.
            seconds: Returns how long training has taken so far.
        """
        self.model, self.names, self.every, self.steps = model, list(names), every, steps
        self._seconds = seconds
        self.step = 0
        self.kept: list[KeptStep] = []

    def after_step(self) -> None:
        """Count an optimizer step, and copy the weights if it is time."""
        self.step += 1
        if self.step % self.every == 0 and self.step < self.steps:
            weights = self.model.snapshot(f"step {self.step}", self.names)
            self.kept.append(KeptStep(self.step, round(self._seconds(), 2), weights))

    def state_dict(self) -> State:
        """Return all copies so far."""
        kept = [[one.step, one.seconds] for one in self.kept]
        state = State({"step": self.step, "kept": kept})
        for one in self.kept:
            state.tensors |= prefixed(str(one.step), one.state)
        return state

    def load_state_dict(self, state: State) -> None:
        """Take over a state that `state_dict` returned."""
        self.step = state.facts["step"]
        adopt = self.model.snapshots.adopt
        self.kept = [
            KeptStep(step, seconds, adopt(f"step {step}", under(str(step), state.tensors)))
            for step, seconds in state.facts["kept"]
        ]

    def rollback(self) -> None:
        """Do nothing: weights are copied after whole steps only."""
