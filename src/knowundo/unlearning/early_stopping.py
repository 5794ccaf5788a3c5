"""When to stop unlearning, and which moment to keep: looks at train rows on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypedDict

import torch

from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.scoring.teacher_forcing import token_accuracy
from knowundo.storage.checkpoints import State

# Rows of a scope that are looked at, at most.
SEEN = 64


class Look(TypedDict):
    """What was seen after a step."""

    step: int
    unlearn: float  # token accuracy, in [0, 1]
    retention: float
    forgotten: float  # share of the way from knowing to not knowing, in [0, 1]
    kept: float  # 1: nothing of retention was lost, 1/2: as much as the floor allows, 0: twice that
    lost: float  # points of retention accuracy
    score: float  # harmonic mean of forgotten and kept


def set_aside(
    rows: Sequence[Encoded], retention: Sequence[Encoded], *, share: float, both: bool, seed: int
) -> tuple[list[Encoded], list[Encoded], list[Encoded], list[Encoded]]:
    """Divide train rows into those to train on and those to look at.

    Args:
        rows: unlearn rows.
        retention: retention rows.
        share: of the retention rows, set aside.
        both: set unlearn rows aside too; else those that are looked at are trained on as well.
        seed: of the choice.

    Returns:
        Unlearn and retention rows to train on, and at most `SEEN` of each to look at.

    Raises:
        BadInput: a scope has too few rows to set one aside.
    """

    def divide(encoded: Sequence[Encoded], scope: str) -> tuple[list[Encoded], list[Encoded]]:
        if len(encoded) < 2:
            raise BadInput(f"unlearn.stop: {scope}/train has one row, so none can be set aside")
        few = min(8, max(1, len(encoded) // 4))  # one row alone says nothing
        count = min(max(few, round(share * len(encoded))), SEEN)
        chosen = set(Random(seed).sample(range(len(encoded)), count))
        trained = [row for n, row in enumerate(encoded) if n not in chosen]
        return trained, [row for n, row in enumerate(encoded) if n in chosen]

    kept, kept_watched = divide(retention, "retention")
    if both:
        trained, watched = divide(rows, "unlearn")
    else:
        trained, watched = list(rows), Random(seed).sample(list(rows), min(len(rows), SEEN))
    return trained, kept, watched, kept_watched


@dataclass(frozen=True)
class Watch:
    """What is looked at, how often, and what ends training."""

    unlearn: Sequence[Encoded]
    retention: Sequence[Encoded]  # set aside: trained on by nobody
    target: float  # token accuracy on `unlearn` of a model that does not know them, in [0, 1]
    floor: float  # points of token accuracy that retention may lose
    looks: int  # how many, spread evenly over the steps
    patience: int  # so many looks below the floor, each no better than the last, end training


class Watcher:
    """Looks at a model during training and holds its best moment.

    The best moment has the highest harmonic mean of what is forgotten and what is kept, each on a
    scale of its own: all of the way to not knowing is 1, and to lose as much of retention as the
    floor allows is 1/2. Of equal ones it is the earlier; the start, where nothing is forgotten, is
    no candidate.
    """

    def __init__(
        self,
        model: Model,
        watch: Watch,
        names: Sequence[str],
        steps: int,
        look: Callable[[Look], bool] | None = None,
    ) -> None:
        """Look at the start.

        Args:
            model: as it is before the first step.
            watch: what to look at.
            names: parameters that training changes; copies of them are the best moment.
            steps: optimizer steps that training takes.
            look: told of every look; True stops.
        """
        self.model, self.watch, self.names, self._look = model, watch, list(names), look
        self.every = max(1, steps // watch.looks)
        self.step, self._below = 0, 0
        self.stopped = "end"
        self.trajectory: list[Look] = []
        self.trajectory.append(self._see())
        self.best: Look | None = None
        self.best_state: dict[str, torch.Tensor] = {}

    def _see(self) -> Look:
        training = self.model.net.training
        self.model.net.eval()
        left = token_accuracy(self.model, self.watch.unlearn)
        retained = token_accuracy(self.model, self.watch.retention)
        self.model.net.train(training)
        start = self.trajectory[0] if self.trajectory else None
        knew, kept_first = (start["unlearn"], start["retention"]) if start else (left, retained)
        way = knew - self.watch.target
        forgotten = min(max((knew - left) / way, 0.0), 1.0) if way > 0 else 1.0
        lost = 100 * (kept_first - retained)
        kept = min(max(1 - lost / (2 * self.watch.floor), 0.0), 1.0)
        both = forgotten + kept
        return Look(
            step=self.step,
            unlearn=left,
            retention=retained,
            forgotten=forgotten,
            kept=kept,
            lost=lost,
            score=2 * forgotten * kept / both if both else 0.0,
        )

    def after_step(self) -> bool:
        """Called after each optimizer step; True: stop."""
        self.step += 1
        if self.step % self.every:
            return False
        return self._judge()

    def _judge(self) -> bool:
        seen = self._see()
        before = self.trajectory[-1]
        self.trajectory.append(seen)
        if self.best is None or seen["score"] > self.best["score"]:
            self.best, self.best_state = seen, self.model.state(self.names)
        if seen["lost"] <= self.watch.floor:
            self._below = 0
        elif seen["lost"] >= before["lost"]:  # else the dip is healing
            self._below += 1
        if self._look and self._look(seen):
            self.stopped = "pruned"
        elif seen["unlearn"] <= self.watch.target and not self._below:
            self.stopped = "target"
        elif self._below >= self.watch.patience:
            self.stopped = "floor"
        return self.stopped != "end"

    def carry(self) -> State:
        names = ("step", "_below", "stopped", "trajectory", "best")
        return State({name: getattr(self, name) for name in names}, dict(self.best_state))

    def resume(self, state: State) -> None:
        for name, value in state.facts.items():
            setattr(self, name, value)
        self.best_state = state.tensors

    def undo(self) -> None:
        """Nothing: it looks after whole steps only."""

    def facts(self) -> dict[str, Any]:
        """What a manifest says: every look, the one that was kept, and why training ended.

        Takes a last look, if training ended between two.
        """
        if self.trajectory[-1]["step"] != self.step:
            self._judge()
        return {"trajectory": self.trajectory, "best": self.best, "stopped": self.stopped}
