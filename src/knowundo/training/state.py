"""The training state: everything that the next step depends on beside the batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils import get_total_norm

from knowundo.errors import Diverged
from knowundo.modeling.model import Model
from knowundo.storage.checkpoints import (
    Carried,
    OptimizerState,
    RandomNumbers,
    State,
    packed,
    unpacked,
)

Curve = list[dict[str, Any]]


class TrainingState:
    """How far training got: everything that the next step depends on beside the batches."""

    def __init__(
        self,
        model: Model,
        region: Sequence[str],
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        carried: Sequence[Carried],
        *,
        rollback: bool,
    ) -> None:
        self.model, self.region, self.scheduler = model, region, scheduler
        self.optimizer, self.random = OptimizerState(optimizer), RandomNumbers(model.device)
        self.carried = carried
        self.step = 0
        self.curve: Curve = []
        self.parts: dict[str, torch.Tensor] = {}  # of the step under way, where they were computed
        self.means: dict[str, float] = {}  # the same, once it is over
        self.rows: int | None = None  # at most so many a piece: memory ran out with more
        self.tried = 0  # rows of the largest piece so far
        self.drawn: State | None = None  # random numbers to begin the next step with; none: go on
        self.updating = False
        self.good_step = 0
        self.good = model.state(region) if rollback else {}
        self.own = model.parameters()

    def carry(self) -> State:
        """All of it after a whole step."""
        facts = {"step": self.step, "curve": self.curve, "good_step": self.good_step}
        own = State(facts | {"scheduler": self.scheduler.state_dict()})
        weights = State(tensors=self.model.state(self.region))
        parts = [own, weights, State(tensors=self.good), self.optimizer.carry()]
        return packed([*parts, self.random.carry(), *(one.carry() for one in self.carried)])

    def resume(self, state: State) -> None:
        """Go on from what `carry` gave."""
        own, weights, good, optimizer, self.drawn, *carried = unpacked(state)
        self.step, self.curve = own.facts["step"], own.facts["curve"]
        self.good_step, self.good = own.facts["good_step"], good.tensors
        self.scheduler.load_state_dict(own.facts["scheduler"])
        self.model.overwrite(weights.tensors)
        self.optimizer.resume(optimizer)
        for one, part in zip(self.carried, carried, strict=True):
            one.resume(part)

    def before_step(self) -> None:
        """Random numbers of a step, so that it can be made again."""
        if self.drawn is None:
            self.drawn = self.random.carry()
        else:
            self.random.resume(self.drawn)

    def before_update(self) -> None:
        """The step's loss must be finite, and its gradients. Then the weights are good.

        Here, once a step, numbers are waited for that the device computes.

        Raises:
            Diverged: a part of the loss or a gradient is not finite.
        """
        values = torch.stack(list(self.parts.values())).tolist() if self.parts else []
        self.means = dict(zip(self.parts, values, strict=True))
        if not all(map(math.isfinite, values)):
            raise Diverged(f"step {self.step + 1}: the loss is no longer finite: {self.means}")
        groups = self.optimizer.optimizer.param_groups
        gradients = [p.grad for g in groups for p in g["params"] if p.grad is not None]
        if not bool(get_total_norm(gradients).isfinite()):
            raise Diverged(f"step {self.step + 1}: a gradient is no longer finite")
        if self.good:
            for name, value in self.good.items():
                value.copy_(self.own[name].detach())
            self.good_step = self.step
        self.updating = True

    def after_step(self) -> None:
        """Count it."""
        self.step += 1
        self.curve.append({"step": self.step, "parts": self.means})
        self.parts, self.drawn = {}, None

    def undo(self) -> None:
        """Forget the step under way."""
        self.parts = {}
        self.optimizer.optimizer.zero_grad()
        for one in self.carried:
            one.undo()
