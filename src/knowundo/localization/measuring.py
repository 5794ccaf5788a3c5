"""Measures tensors for localizers, a few of them in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from knowundo.data.encoded import Encoded
from knowundo.entry import Entry, taken
from knowundo.errors import BadInput
from knowundo.localization.gradients import (
    Gradients,
    Measured,
    Sums,
    mean_gradients,
)
from knowundo.localization.tensors import ScopeGradients, TensorView
from knowundo.modeling.model import Model
from knowundo.modeling.squared_gradients import mean_squares
from knowundo.region_rule import RegionRule
from knowundo.storage.checkpoints import State, prefixed, under
from knowundo.storage.job import Job

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Scoring:
    """A localizer that scores, with its arguments.

    Attributes:
        entry: The localizer.
        bound: Its own arguments, and those of the rule.
    """

    entry: Entry
    bound: dict[str, Any]

    @property
    def needs(self) -> set[str]:
        """What it sees of a tensor."""
        return set(self.entry.facts["needs"])

    @property
    def rule(self) -> RegionRule:
        """How its scores become a region."""
        return RegionRule(**{name: self.bound[name] for name in ("share", "granularity")})

    def check(self) -> None:
        """Refuse a region of rows, columns or weights where only whole modules are scored.

        Raises:
            BadInput: Names the localizer and the granularity.
        """
        if self.rule.masks and "model" in self.needs:
            raise BadInput(
                f"localize.{self.entry.name}: granularity {self.rule.granularity}: it scores whole "
                "modules or layers; choose tensor or module"
            )

    def score(self, seen: Any) -> Any:
        """Call the localizer on what it sees."""
        return self.entry(seen, **taken(self.entry.function, self.bound))


@dataclass
class Found:
    """What was measured.

    Attributes:
        measured: Cosine and magnitude of each tensor.
        scores: Of each localizer that scores tensors, its scores by parameter name: one value a
            unit, in a shape that broadcasts to the tensor's.
    """

    measured: Measured = field(default_factory=lambda: Measured({}, {}))
    scores: dict[str, Tensors] = field(default_factory=dict)


def measure(
    model: Model,
    rows: Mapping[str, Sequence[Encoded]],
    groups: Sequence[Sequence[str]],
    scorings: Sequence[Scoring] = (),
    *,
    batch_size: int,
    job: Job = Job(),
) -> Found:
    """Cosine and magnitude of the mean gradients of each tensor, and its scores.

    Args:
        model: Not changed.
        rows: Rows of `unlearn` and `retention`.
        groups: Names of the tensors whose gradients of both scopes are in memory at a time; more
            groups take more passes over the rows.
        scorings: Localizers that score tensors.
        batch_size: Rows per backward pass.
        job: Progress and checkpoint.

    Raises:
        BadInput: A score is not finite, or the checkpoint is damaged.
    """
    state = _MeasuringState(model, scorings, job)
    squared = any("squares" in scoring.needs for scoring in scorings)
    for number, group in enumerate(groups):
        if set(group) <= set(state.found.measured.names):  # measured before the job was resumed
            continue
        for part, (scope, encoded) in enumerate(rows.items(), start=1):
            if scope not in state.means:
                state.means[scope] = mean_gradients(
                    model, encoded, batch_size=batch_size, names=group,
                    begin=state.sums, each=state.after_batch,
                )  # fmt: skip
                state.sums = None
            if squared:
                state.squares[scope] = mean_squares(model, encoded, group)
            job.report(number * len(rows) + part, len(groups) * len(rows))
        state.after_group()
    return state.found


class _MeasuringState:
    """How far the measuring is: groups of tensors, scopes of a group, batches of a scope."""

    def __init__(self, model: Model, scorings: Sequence[Scoring], job: Job) -> None:
        self.model, self.scorings, self.job = model, scorings, job
        self.found = Found(scores={scoring.entry.name: {} for scoring in scorings})
        self.means: dict[str, Tensors] = {}
        self.squares: dict[str, Tensors] = {}  # of the group in progress; in no checkpoint
        self.sums: Sums | None = None
        if (state := job.resumed()) is None:
            return
        facts = state.facts
        self.found.measured = Measured(facts["cosines"], facts["magnitudes"])
        for name in self.found.scores:
            self.found.scores[name] = under(f"scores-{name}", state.tensors)
        self.means = {s: under(f"mean-{s}", state.tensors) for s in facts["scopes"]}
        if facts["batches"]:
            gradients = under("sum", state.tensors)
            self.sums = Sums(facts["batches"], facts["size"], gradients)

    def after_batch(self, sums: Sums) -> None:
        if not self.job.due():
            return
        facts = {
            "cosines": self.found.measured.cosines,
            "magnitudes": self.found.measured.magnitudes,
            "scopes": list(self.means),
            "batches": sums.batches,
            "size": sums.size,
        }
        tensors = prefixed("sum", sums.gradients)
        for scope, means in self.means.items():
            tensors |= prefixed(f"mean-{scope}", means)
        for name, scores in self.found.scores.items():
            tensors |= prefixed(f"scores-{name}", scores)
        self.job.write(State(facts, {name: value.cpu() for name, value in tensors.items()}))

    def after_group(self) -> None:
        found = Gradients(**self.means).measured()
        for scoring in self.scorings:
            for name in found.names:
                self.found.scores[scoring.entry.name][name] = self._score(scoring, name)
        self.found.measured.cosines.update(found.cosines)
        self.found.measured.magnitudes.update(found.magnitudes)
        self.means, self.squares = {}, {}

    def _score(self, scoring: Scoring, name: str) -> torch.Tensor:
        """Scores of a tensor's units."""
        needs, granularity = scoring.needs, scoring.rule.granularity

        def scope(kind: str) -> ScopeGradients:
            return ScopeGradients(
                self.means[kind][name] if "gradients" in needs else None,
                self.squares[kind][name] if "squares" in needs else None,
            )

        now = self.model.parameters()[name].detach()
        before = self.model.initial.tensors.get(name, now).to(now.device)
        view = TensorView(
            name,
            granularity,
            scope("unlearn"),
            scope("retention"),
            now if "weights" in needs else None,
            before if "base" in needs else None,
        )
        scores = torch.as_tensor(scoring.score(view))
        if not bool(scores.isfinite().all()):
            raise BadInput(
                f"localize.{scoring.entry.name}: the score of {name} is no finite number; "
                "are the memorized weights finite?"
            )
        # Scores of rows or weights are many, and only compared.
        return scores.double().cpu() if scores.numel() == 1 else scores.float().cpu()
