"""The training state: everything that the next optimizer step depends on beside the batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import load, save
from torch.nn.utils import get_total_norm

from knowundo.distributed.group import from_main, group
from knowundo.distributed.sums import sum_parts
from knowundo.errors import Diverged
from knowundo.modeling.model import Model
from knowundo.storage.checkpoints import State, packed, unpacked
from knowundo.training.masks import GradientMasks
from knowundo.training.resumable import OptimizerState, RandomState, Resumable
from knowundo.training.separate_gradients import SeparateGradients

Curve = list[dict[str, Any]]


class TrainingState:
    """How far training is, and everything that its next step depends on beside the batches.

    Attributes:
        step: Optimizer steps that are complete.
        curve: One row per optimizer step, see `train`.
        parts: Loss parts of the step in progress, summed over its micro-batches, on the device.
        means: The same as numbers, once the step's gradient is complete.
        row_limit: The most rows that a micro-batch may have, after memory ran out with more.
        most_rows: Rows of the largest micro-batch of the present attempt.
        updating: Whether the optimizer is changing the weights right now.
        exchanging: Whether processes exchange gradients of the step, which none can repeat alone.
        good_step: The last step after which the loss and its gradients were found finite.
        separate: Gradients that are combined at the end of the step. If `None`, of one loss.
        masks: What leaves gradients out at the end of the step. If `None`, none are left out.
    """

    def __init__(
        self,
        model: Model,
        region: Sequence[str],
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        resumable: Sequence[Resumable],
    ) -> None:
        """Begin at step 0.

        Args:
            model: The one that is trained.
            region: Names of the parameters that change.
            optimizer: Over these parameters.
            scheduler: Of the optimizer's learning rate.
            resumable: Whatever else training changes.
        """
        self.model, self.region, self.scheduler = model, region, scheduler
        self.optimizer, self.random = OptimizerState(optimizer), RandomState(model.device)
        self.resumable = resumable
        self.step = self.good_step = 0
        self.curve: Curve = []
        self.parts: dict[str, torch.Tensor] = {}
        self.means: dict[str, float] = {}
        self.row_limit: int | None = None
        self.most_rows = 0
        self.updating = self.exchanging = False
        self.separate: SeparateGradients | None = None
        self.masks: GradientMasks | None = None
        # Random numbers that the next step begins with. If `None`, those that come next.
        self._drawn: State | None = None

    @property
    def chosen(self) -> list[torch.nn.Parameter]:
        """The parameters that are trained, in the optimizer's order."""
        return [p for group in self.optimizer.optimizer.param_groups for p in group["params"]]

    def state_dict(self) -> State:
        """Return all of it, after a whole step.

        On a CPU its tensors are the weights themselves and no copies, so write it at once.
        """
        facts = {"step": self.step, "curve": self.curve, "good_step": self.good_step}
        own = State(facts | {"scheduler": self.scheduler.state_dict()})
        own_weights = self.model.parameters()
        weights = State(tensors={name: own_weights[name].detach().cpu() for name in self.region})
        # In this order `load_state_dict` takes them apart again.
        parts = [own, weights, self.optimizer.state_dict(), self.random.state_dict()]
        return packed([*parts, *(one.state_dict() for one in self.resumable)])

    def load_state_dict(self, state: State) -> None:
        """Take over a state that `state_dict` returned; the model's weights too."""
        own, weights, optimizer, self._drawn, *others = unpacked(state)
        self.step, self.curve = own.facts["step"], own.facts["curve"]
        self.good_step = own.facts["good_step"]
        self.scheduler.load_state_dict(own.facts["scheduler"])
        self.model.overwrite(weights.tensors)
        self.optimizer.load_state_dict(optimizer)
        for one, part in zip(self.resumable, others, strict=True):
            one.load_state_dict(part)

    def before_step(self) -> None:
        """Remember the random numbers of a step, or draw the same again where it is repeated."""
        if self._drawn is not None:
            self.random.load_state_dict(self._drawn)
            return
        self.share_random()
        self._drawn = self.random.state_dict()

    def share_random(self) -> None:
        """Continue with the random numbers of the main process.

        Each process drew as many as its own rows needed, for dropout.
        """
        if group().size > 1:
            self.random.load_state_dict(_of_main(self.random))

    def before_update(self) -> None:
        """Check that the step's loss and its gradients are finite: then the weights are good.

        The one place in a step that waits for numbers which the device computes.

        Raises:
            Diverged: A part of the loss or a gradient is not finite.
        """
        parts = sum_parts(self.parts)
        values = torch.stack(list(parts.values())).tolist() if parts else []
        self.means = dict(zip(parts, values, strict=True))
        if not all(map(math.isfinite, values)):
            raise Diverged(f"step {self.step + 1}: the loss is no longer finite: {self.means}")
        # The loss can be finite where its gradient is not (sqrt at 0), and one bad gradient would
        # stay in AdamW's moments for good.
        gradients = [p.grad for p in self.chosen if p.grad is not None]
        if not bool(get_total_norm(gradients).isfinite()):
            raise Diverged(f"step {self.step + 1}: a gradient is no longer finite")
        self.good_step = self.step
        self.updating = True

    def after_step(self) -> None:
        """Count the step, and add it to the curve."""
        self.step += 1
        self.curve.append({"step": self.step, "parts": self.means})
        self.parts, self._drawn, self.exchanging = {}, None, False
        if self.separate is not None:
            self.separate.after_step()

    def rollback(self) -> None:
        """Discard the step in progress, whose weights have not moved yet."""
        self.parts = {}
        self.optimizer.optimizer.zero_grad()
        for one in self.resumable:
            one.rollback()


def _of_main(random: RandomState) -> State:
    """The random numbers of the main process, as bytes: pickle knows no tensor of uint32."""

    def packed_up() -> tuple[dict[str, Any], bytes]:
        state = random.state_dict()
        return state.facts, save(state.tensors)

    facts, tensors = from_main(packed_up)
    return State(facts, load(tensors))
