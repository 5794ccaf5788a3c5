"""The memorized model, where every method starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from knowundo.data.batches import PairedBatch, paired
from knowundo.data.encoded import Encoded
from knowundo.entry import Entry
from knowundo.errors import BadInput, KnowUndoError
from knowundo.modeling.forward import Forward
from knowundo.modeling.half import Columns
from knowundo.modeling.model import Model
from knowundo.modeling.reference import Reference
from knowundo.modeling.snapshots import MEMORIZED
from knowundo.modeling.step import Parts, Step
from knowundo.unlearning.scorer import Encode, Scorer
from knowundo.unlearning.settings import SIBLINGS, UnlearnSettings, retained_scopes
from knowundo.unlearning.siblings import siblings


class Start:
    """The memorized model, where every method starts, and what is computed from it only once.

    Attributes:
        model: The model, whose weights training moves.
        seed: Seed of the order of rows and of prepared labels; the same for all methods.
        unlearn_rows: Train rows that must go; an epoch is one pass over them.
        retention_rows: By scope, the rows that `step.retention` can be.
        encode: Encodes records as the rows were encoded, or `None`.
    """

    def __init__(
        self,
        model: Model,
        unlearn_rows: Sequence[Encoded],
        retention_rows: Mapping[str, Sequence[Encoded]],
        *,
        seed: int,
        encode: Encode | None = None,
    ) -> None:
        """Remember the model as it is now.

        Args:
            model: The memorized model.
            unlearn_rows: Train rows that must go.
            retention_rows: By scope, the rows that `step.retention` can be.
            seed: Seed of the order of rows and of prepared labels.
            encode: Encodes records as the rows were encoded; only other answers need it.
        """
        self.model, self.seed, self.encode = model, seed, encode
        self.unlearn_rows, self.retention_rows = unlearn_rows, retention_rows
        self._memorized = model.snapshots.adopt(MEMORIZED, {})
        if model.adaptation.kind == "lora":
            self.copy_memorized(model.parameters())
        self._columns: dict[Any, Columns] = {}

    def copy_memorized(self, names: Iterable[str]) -> None:
        """Copy what these parameters are in the memorized model, before they change.

        Of all weights only a region's originals are copied: there is never a second model.
        """
        self.model.extend_snapshot(self._memorized, names)

    @property
    def memorized(self) -> Mapping[str, torch.Tensor]:
        """The memorized model's weights by name, as far as they are copied."""
        return self._memorized.tensors

    @property
    def changed(self) -> list[str]:
        """Names of all parameters that can differ from the memorized model's."""
        return list(self._memorized.tensors)

    def restore(self) -> Model:
        """Make the model the memorized one again."""
        self.model.overwrite(self._memorized.tensors)
        return self.model

    @cached_property
    def reference(self) -> Reference:
        """The frozen memorized model at every row that a step can have.

        Computed when it is first read, inside the first step: no weights are exchanged while a
        graph refers to them.

        Raises:
            KnowUndoError: Weights have moved already.
        """
        own, memorized = self.model.parameters(), self._memorized.tensors
        if not all(torch.equal(own[name].cpu(), value) for name, value in memorized.items()):
            raise KnowUndoError("a loss that reads step.reference must read it in its first step")
        rows = [*self.unlearn_rows, *(row for rows in self.retention_rows.values() for row in rows)]
        return Reference.of(self.model, rows)

    def columns(self, method: Entry, bound: Mapping[str, Any] | None = None) -> Columns:
        """Return what the method's `prepare` makes of the unlearn rows.

        Call it right after `restore`: it asks the model that is in memory.

        Args:
            method: Its `prepare` is called once for all trainings with equal arguments.
            bound: Its hyper-parameters. If `None`, their defaults.
        """
        if method.prepare_function is None:
            return {}
        arguments = method.prepare_arguments(method.bind({}) if bound is None else bound)
        # Only the arguments that `prepare` takes count: variants that differ in the weights of
        # their terms share their columns.
        key = method.name, repr(arguments)
        if key not in self._columns:
            made = method.prepare_function(self.unlearn_rows, self.scorer(), **arguments)
            self._columns[key] = made
        return self._columns[key]

    def scorer(self) -> Scorer:
        """What a `prepare` may ask of the model that is in memory."""
        kept = self.retention_rows.get("retention", ())
        return Scorer(self.model, self.seed, self.encode, self.restore, kept)

    def batches(
        self, method: Entry, bound: Mapping[str, Any], settings: UnlearnSettings
    ) -> tuple[list[PairedBatch], int]:
        """Return the batches of all epochs, and how many of them make an optimizer step.

        Args:
            method: Whose batches these are.
            bound: Its hyper-parameters.
            settings: Sizes, epochs, and which rows are `step.retention`.
        """
        batches = paired(
            self.unlearn_rows,
            *self.retained(settings),
            size=settings.batch_size,
            retained=settings.retained,
            epochs=settings.epochs,
            seed=self.seed,
            pad=self.model.pad,
        )
        return batches, settings.accumulation

    def retained(self, settings: UnlearnSettings) -> list[Sequence[Encoded]]:
        """Return the rows that fill the retention half, a list for each scope.

        Call it right after `restore`: siblings are made of what the model in memory knows.

        Raises:
            BadInput: There are no siblings of retention rows.
        """
        scopes = retained_scopes(settings.retain_on)
        return [self.siblings if s == SIBLINGS else self.retention_rows[s] for s in scopes]

    @cached_property
    def siblings(self) -> Sequence[Encoded]:
        """What else the model knows of the subjects of retention rows; see `retained`."""
        if SIBLINGS in self.retention_rows:
            return self.retention_rows[SIBLINGS]
        rows = self.retention_rows["retention"]
        if not (made := list(siblings(rows, self.scorer(), scope=SIBLINGS).values())):
            raise BadInput(
                "retain_on siblings: no question of a retention row names its subject, or the "
                "model has no other answers about it; leave siblings out"
            )
        self.reference.apart = made
        return made

    def optimizer(self, name: str) -> str:
        """Return the optimizer to train with, where this one is asked for."""
        return name

    def parts(
        self,
        method: Entry,
        bound: Mapping[str, Any],
        batch: PairedBatch,
        read: set[str],
        forward: Forward | None = None,
        state: Mapping[str, float] | None = None,
    ) -> Parts:
        """Return the parts of the method's loss on one micro-batch.

        Args:
            method: Its loss is called once.
            bound: Its hyper-parameters.
            batch: On any device.
            read: Halves that the loss has read before; those that it reads now are added. What was
                read before is computed in one forward.
            forward: How hidden states are computed. If `None`, without a prefix cache.
            state: Numbers that the method carries from step to step. If `None`, its first ones.
        """
        # Batches wait on the host: those of all epochs would fill the device.
        device = self.model.device
        here = batch.unlearn.to(device), batch.retention.to(device)
        batch = replace(batch, unlearn=here[0], retention=here[1])
        step = Step(
            forward or Forward(self.model),
            batch,
            reference=lambda: self.reference,
            columns=self.columns(method, bound),
            read=frozenset(read),
            state=method.first_state(bound) if state is None else state,
        )
        parts: Parts = method(step, **bound)
        read.update(step.used)
        return parts
