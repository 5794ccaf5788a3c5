"""The step that a loss sees: its unlearn, retention and alternative rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property

import torch

from knowundo.data.batches import Batch, PairedBatch, collate
from knowundo.data.encoded import Encoded
from knowundo.errors import KnowUndoError
from knowundo.modeling.forward import Forward
from knowundo.modeling.half import Columns, Half
from knowundo.modeling.head import live_head
from knowundo.modeling.reference import Reference

# What a loss may read of a step, in its order in one forward.
HALVES = ("unlearn", "retention", "alternative")
# After a half's name: hidden states of a layer were read, which the joint forward does not give.
LAYER = ".layer"


def halves_of(used: Iterable[str]) -> set[str]:
    """The halves among what a loss read (`Step.used`), whether their layers or final states."""
    return {name.removesuffix(LAYER) for name in used}


def _holds(held: Mapping[Encoded, torch.Tensor], batch: Batch) -> bool:
    return all(row in held for row in batch.encoded)


def _as_tuple(made: Encoded | tuple[Encoded, ...]) -> tuple[Encoded, ...]:
    return (made,) if isinstance(made, Encoded) else made


def _late() -> KnowUndoError:
    return KnowUndoError("a loss that reads step.reference must read it in its first step")


class ReferenceStep:
    """`step.reference`: the frozen memorized model on the rows of a step."""

    def __init__(self, step: Step, reference: Callable[[], Reference], *, first: bool) -> None:
        self._step, self._reference, self._first = step, reference, first

    def _half(self, name: str) -> Half:
        """What is read of it is taken of all rows that may come to lie in this half.

        Raises:
            KnowUndoError: Nothing of the rows is held, and weights may have moved already.
        """
        reference, batch = self._reference(), self._step.rows(name)
        kinds = [reference.states, *reference.layers.values()]
        if not self._first and not any(_holds(held, batch) for held in kinds):
            raise _late()
        return reference.half(batch, lambda layer: self._hold(reference, name, layer))

    def _hold(self, reference: Reference, name: str, layer: int | None) -> None:
        """Take all rows that may come to lie in a half at once: later, weights move.

        Raises:
            KnowUndoError: Weights may have moved already.
        """
        step, batch = self._step, self._step.rows(name)
        if _holds(reference.held(layer), batch):
            return
        if not self._first:
            raise _late()
        if name == "alternative":
            rows = [row for made in step.columns[name].values() for row in _as_tuple(made)]
            reference.hold(rows, rows, step.forward, layer)
        else:
            # Of the whole batch: a micro-batch may lack a scope that the next one has.
            scopes = {row.record.scope for row in batch.whole}
            rows = [row for row in reference.rows if row.record.scope in scopes]
            reference.hold(rows, forward=step.forward, layer=layer)
            apart = [row for row in reference.apart if row.record.scope in scopes]
            reference.hold(apart, apart, step.forward, layer)

    @cached_property
    def unlearn(self) -> Half:
        """The reference's view of the unlearn rows."""
        return self._half("unlearn")

    @cached_property
    def retention(self) -> Half:
        """The reference's view of the retention rows."""
        return self._half("retention")

    @cached_property
    def alternative(self) -> Half:
        """The reference's view of the alternative answers."""
        return self._half("alternative")


class Step:
    """One paired batch, computed as far as the loss reads it.

    `step.unlearn`, `step.retention` and `step.alternative` run the current model when their states
    are first read; a method gets the final states that it has `read` before from one forward.
    """

    def __init__(
        self,
        forward: Forward,
        batch: PairedBatch,
        *,
        reference: Callable[[], Reference],
        columns: Columns | None = None,
        read: Collection[str] = (),
        state: Mapping[str, float] | None = None,
    ) -> None:
        """Nothing is computed yet.

        Args:
            forward: of the current model.
            batch: on its device.
            reference: asked only if the loss reads it.
            columns: what the method's `prepare` made.
            read: what the loss read in earlier steps (`used`). If empty, this is the first one.
            state: numbers that the method carries from step to step.
        """
        self.forward, self.model = forward, forward.model
        self.batch, self.columns, self.state = batch, columns or {}, state or {}
        self.reference = ReferenceStep(self, reference, first=not read)
        self.used: set[str] = set()
        self._read = read if len(read) > 1 else ()

    @cached_property
    def _alternatives(self) -> Batch:
        if "alternative" not in self.columns:
            raise KnowUndoError("step.alternative: the method's `prepare` made no such column")
        rows = [self._alternative(row) for row in self.batch.unlearn.encoded]
        whole = [self._alternative(row) for row in self.batch.unlearn.whole]
        return collate(rows, self.model.pad, whole=whole).to(self.model.device)

    def _alternative(self, row: Encoded) -> Encoded:
        """The row with its other answer; of several, the one whose turn it is in this epoch."""
        made = _as_tuple(self.columns["alternative"][row.record.id])
        return made[self.batch.epoch % len(made)]

    def rows(self, half: str) -> Batch:
        """The rows of a half by its name."""
        if half == "alternative":
            return self._alternatives
        batch: Batch = getattr(self.batch, half)
        return batch

    @cached_property
    def _joint(self) -> dict[str, torch.Tensor]:
        halves = {name: self.rows(name) for name in HALVES if name in self._read}
        encoded = [row for half in halves.values() for row in half.encoded]
        joint = collate(encoded, self.model.pad).to(self.model.device)
        states = self.forward.hidden_states(joint)
        parts, begin = {}, 0
        for name, half in halves.items():
            parts[name] = states[begin : begin + len(half.targets)]
            begin += len(half.targets)
        return parts

    def _half(self, name: str) -> Half:
        batch = self.rows(name)

        def states() -> torch.Tensor:
            self.used.add(name)
            return self._joint[name] if name in self._read else self.forward.hidden_states(batch)

        def layer(number: int) -> torch.Tensor:
            self.used.add(name + LAYER)
            return self.forward.layer_states(batch, number)

        return Half(batch, states, live_head(self.model), self.columns, layer)

    @cached_property
    def unlearn(self) -> Half:
        """The current model on rows that must go."""
        return self._half("unlearn")

    @cached_property
    def retention(self) -> Half:
        """The current model on rows that must stay."""
        return self._half("retention")

    @cached_property
    def alternative(self) -> Half:
        """The current model on the unlearn rows' questions with the alternative answers."""
        return self._half("alternative")


Parts = dict[str, torch.Tensor]
