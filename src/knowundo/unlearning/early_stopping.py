"""When to stop unlearning, and which step's weights are best: evaluations on train rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Any, NotRequired, TypedDict

from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.modeling.snapshots import BEST_STEP, Snapshot
from knowundo.scoring.answers import answered
from knowundo.scoring.teacher_forcing import token_accuracy
from knowundo.storage.checkpoints import State
from knowundo.unlearning.retained_answers import RetainedAnswers

# The most rows of a scope that are evaluated: an evaluation must cost less than a few steps.
MOST_ROWS = 64
# Share of the way to not knowing from which an evaluation step counts as unlearned. The verdict on
# an erased list allows half of the way; the rest is room for the rows that are not evaluated.
ENOUGH = 0.6


class Evaluation(TypedDict):
    """What was measured after an optimizer step."""

    step: int
    unlearn: float  # token accuracy, in [0, 1]
    retention: float
    forgotten: float  # share of the way from knowing to not knowing, in [0, 1]
    kept: float  # 1: no retention was lost, 1/2: as much as the floor allows, 0: twice that
    lost: float  # points of retention accuracy, or percent of its answers
    score: float  # harmonic mean of forgotten and kept
    answered: NotRequired[float]  # percent of rows answered verbatim, where they were asked


@dataclass(frozen=True)
class StoppingRule:
    """What is evaluated, how often, and what ends training.

    Attributes:
        unlearn: Unlearn rows that are evaluated.
        retention: Retention rows that are evaluated; nothing is trained on them.
        target: Token accuracy on `unlearn` of a model that does not know them, in [0, 1].
        floor: Points that retention may lose. Infinite if nothing that is known can be evaluated.
        evaluations: How many evaluation steps there are, spread evenly over training.
        patience: So many evaluations below the floor, each no better than the last, end training.
        enough: Share of the way to not knowing, in [0, 1], from which a step counts as unlearned.
        asked: Of each unlearn row, the wordings that a search of the rate asks by generation after
            each attempt.
        left: Percent of these rows that may still be answered verbatim, in any wording.
        minutes: A search of the rate begins no further attempt after so many.
        damage: What the floor counts: `tokens`, points of token accuracy, or `answers`, percent of
            the rows whose answers were right and sure at the start, and no longer are right.
    """

    unlearn: Sequence[Encoded]
    retention: Sequence[Encoded]
    target: float
    floor: float
    evaluations: int
    patience: int
    enough: float = ENOUGH
    asked: Sequence[Sequence[Encoded]] = ()
    left: float = 5.0
    minutes: float = math.inf
    damage: str = "tokens"


def set_aside(
    rows: Sequence[Encoded], retention: Sequence[Encoded], *, share: float, both: bool, seed: int
) -> tuple[list[Encoded], list[Encoded], list[Encoded], list[Encoded]]:
    """Divide train rows into those to train on and those to evaluate.

    Args:
        rows: Unlearn rows.
        retention: Retention rows.
        share: Share of the retention rows that is set aside.
        both: Set unlearn rows aside too. If `False`, those that are evaluated are trained on.
        seed: Seed of the choice.

    Returns:
        Unlearn and retention rows to train on, and at most `MOST_ROWS` of each to evaluate.

    Raises:
        BadInput: A scope has too few rows to set one aside.
    """

    def divide(encoded: Sequence[Encoded], scope: str) -> tuple[list[Encoded], list[Encoded]]:
        if len(encoded) < 2:
            raise BadInput(f"unlearn.stop: {scope}/train has one row, so none can be set aside")
        few = min(12, max(1, len(encoded) // 4))  # one row alone says nothing
        count = min(max(few, round(share * len(encoded))), MOST_ROWS)
        chosen = set(Random(seed).sample(range(len(encoded)), count))
        trained = [row for n, row in enumerate(encoded) if n not in chosen]
        return trained, [row for n, row in enumerate(encoded) if n in chosen]

    trained_retention, evaluated_retention = divide(retention, "retention")
    if both:
        trained, evaluated = divide(rows, "unlearn")
    else:
        # Unlearning has to be seen on the very rows that it is about; retention would be flattered
        # by rows that it is trained on.
        count = min(len(rows), MOST_ROWS)
        trained, evaluated = list(rows), Random(seed).sample(list(rows), count)
    return trained, trained_retention, evaluated, evaluated_retention


def percent_verbatim(model: Model, wordings: Sequence[Sequence[Encoded]]) -> float | None:
    """Percent of rows that the model answers verbatim, greedily, in any of their wordings.

    Args:
        model: Not changed.
        wordings: Of each row.

    Returns:
        `None` if there are no rows.
    """
    if not wordings:
        return None
    said = answered(model, list(chain.from_iterable(wordings)))
    hits = [any(said[row.record.id].exact for row in rows) for rows in wordings]
    return 100 * sum(hits) / len(hits)


class EarlyStopping:
    """Evaluates a model during training, and holds the weights of its best evaluation step.

    Where the target is reached, the list is asked by generation: while it is still answered,
    training goes on. With an infinite floor no loss can be seen; then the list is asked as soon as
    enough is unlearned, and training ends where it is no longer answered.

    The best step is one whose list is not answered, else one that has unlearned
    enough; of these, or if there is none, it has the highest harmonic mean of what is unlearned and
    what is retained, each on a scale of its own: all of the way to not knowing is 1, and to lose as
    much of retention as the floor allows is 1/2. Of equal ones it is the earlier. The start, where
    nothing is unlearned, is no candidate.

    Attributes:
        trajectory: All evaluations, that of the start first.
        best: The evaluation with the highest score so far.
        stopped: Why training ended: `target`, `floor`, `pruned` (by the observer) or `end`.
    """

    def __init__(
        self,
        model: Model,
        rule: StoppingRule,
        names: Sequence[str],
        steps: int,
        observer: Callable[[Evaluation], bool] | None = None,
    ) -> None:
        """Evaluate the start.

        Args:
            model: As it is before the first step.
            rule: What is evaluated, and what ends training.
            names: Parameters that training changes; the best weights are a copy of them.
            steps: Optimizer steps that training takes.
            observer: Called with each evaluation after a step; `True` stops.
        """
        self.model, self.rule, self.names, self._observer = model, rule, list(names), observer
        self.every = max(1, steps // rule.evaluations)
        self.step, self._below_floor = 0, 0
        self.stopped = "end"
        self._known: frozenset[str] | None = None  # retention rows whose answers may be lost
        self.trajectory: list[Evaluation] = []
        self.trajectory.append(self._evaluate())
        self.best: Evaluation | None = None
        self._best_weights: Snapshot | None = None

    @property
    def _blind(self) -> bool:
        """True if no loss can be seen: then no more is unlearned than has to be."""
        return math.isinf(self.rule.floor) and bool(self.rule.asked)

    def _evaluate(self) -> Evaluation:
        training = self.model.net.training
        # No dropout, also of the base: answers are those of the model, and training stays the same.
        self.model.net.eval()
        found = self._measured()
        self.model.net.train(training)
        return found

    def _measured(self) -> Evaluation:
        unlearn = token_accuracy(self.model, self.rule.unlearn)
        retention, answers_lost = self._retained()
        start = self.trajectory[0] if self.trajectory else None
        known = start["unlearn"] if start else unlearn
        way = known - self.rule.target
        # A model that knew no more than the target has nothing left to unlearn.
        forgotten = min(max((known - unlearn) / way, 0.0), 1.0) if way > 0 else 1.0
        lost = 100 * ((start["retention"] if start else retention) - retention)
        if answers_lost is not None:
            lost = answers_lost
        kept = min(max(1 - lost / (2 * self.rule.floor), 0.0), 1.0)
        both = forgotten + kept
        found = Evaluation(
            step=self.step,
            unlearn=unlearn,
            retention=retention,
            forgotten=forgotten,
            kept=kept,
            lost=lost,
            score=2 * forgotten * kept / both if both else 0.0,
        )
        # Generation takes longer than an evaluation, so nothing is asked before it may be over.
        over = forgotten >= self.rule.enough if self._blind else unlearn <= self.rule.target
        if start is not None and over and lost <= self.rule.floor:
            answered = percent_verbatim(self.model, self.rule.asked)
            found |= {} if answered is None else {"answered": answered}
        return found

    def _retained(self) -> tuple[float, float | None]:
        """Token accuracy on retention rows, and the percent of answers lost if that counts."""
        if self.rule.damage == "tokens":
            return token_accuracy(self.model, self.rule.retention), None
        found = RetainedAnswers.of(self.model, self.rule.retention)
        if self._known is None:
            self._known = found.sure
        return found.token_accuracy, found.lost(self._known)

    def _rank(self, found: Evaluation) -> tuple[bool, bool, float]:
        gone = found.get("answered", math.inf) <= self.rule.left
        score = -found["forgotten"] if gone and self._blind else found["score"]
        return gone, found["forgotten"] >= self.rule.enough, score

    def after_step(self) -> bool:
        """Count an optimizer step, and evaluate if it is time; `True` ends training."""
        self.step += 1
        if self.step % self.every:
            return False
        return self._judge()

    def _judge(self) -> bool:
        found, before = self._evaluate(), self.trajectory[-1]
        self.trajectory.append(found)
        if self.best is None or self._rank(found) > self._rank(self.best):
            self.best = found
            self._best_weights = None  # first, so that there are never two copies
            self._best_weights = self.model.snapshot(BEST_STEP, self.names)
        if found["lost"] <= self.rule.floor:
            self._below_floor = 0
        elif found["lost"] >= before["lost"]:  # else retention is recovering
            self._below_floor += 1
        if self._observer and self._observer(found):
            self.stopped = "pruned"
        elif self._reached(found):
            self.stopped = "target"
        elif self._below_floor >= self.rule.patience:
            self.stopped = "floor"
        return self.stopped != "end"

    def _reached(self, found: Evaluation) -> bool:
        """True if training may end. Only above the floor: a model that lost all is below a target.

        Where no loss can be seen, the target need not be reached, but the list must be asked.
        """
        left = found.get("answered", math.inf if self._blind else 0.0)
        low = self._blind or found["unlearn"] <= self.rule.target
        return low and left <= self.rule.left and not self._below_floor

    def finish(self) -> None:
        """Evaluate the end of training, if it is not an evaluation step."""
        if self.trajectory[-1]["step"] != self.step:
            self._judge()

    def restore_best(self) -> None:
        """Make the model that of the best evaluation step, if there is one."""
        if self._best_weights is not None:
            self.model.overwrite(self._best_weights.tensors)

    def facts(self) -> dict[str, Any]:
        """Return what a manifest says: every evaluation, the best, and why training ended."""
        return {"trajectory": self.trajectory, "best": self.best, "stopped": self.stopped}

    def state_dict(self) -> State:
        """Return all evaluations so far, and the best weights."""
        facts = self.facts() | {"step": self.step, "below_floor": self._below_floor}
        facts["known"] = None if self._known is None else sorted(self._known)
        return State(facts, dict(self._best_weights.tensors) if self._best_weights else {})

    def load_state_dict(self, state: State) -> None:
        """Take over a state that `state_dict` returned."""
        facts = state.facts
        self.trajectory, self.best = facts["trajectory"], facts["best"]
        self.stopped, self.step = facts["stopped"], facts["step"]
        self._below_floor = facts["below_floor"]
        self._known = None if facts["known"] is None else frozenset(facts["known"])
        if self.best is not None:
            self._best_weights = self.model.snapshots.adopt(BEST_STEP, state.tensors)

    def rollback(self) -> None:
        """Do nothing: evaluations are made after whole steps only."""
