"""The memorized model, where every method starts, and what its `prepare` may ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from knowundo.data.batches import PairedBatch, paired
from knowundo.data.encoded import Encoded
from knowundo.data.neighbours import renamed
from knowundo.data.records import Record
from knowundo.errors import KnowUndoError
from knowundo.modeling.forward import answer_logits
from knowundo.modeling.half import Columns
from knowundo.modeling.model import Model
from knowundo.modeling.reference import Reference
from knowundo.modeling.snapshots import MEMORIZED
from knowundo.modeling.step import Parts, Step
from knowundo.registry import Entry
from knowundo.scoring.generation import sample
from knowundo.unlearning.settings import UnlearnSettings

Encode = Callable[[list[Record]], list[Encoded]]


class Scorer:
    """What a method's `prepare` may ask of the memorized model."""

    def __init__(self, model: Model, seed: int, encode: Encode | None = None) -> None:
        self._model, self.seed, self._encode = model, seed, encode
        self.special = sorted(model.tokenizer.all_special_ids)

    @property
    def vocabulary(self) -> int:
        """Tokens that the model can emit."""
        return len(self._model.tokenizer)

    @property
    def positions(self) -> int | None:
        """Tokens that the model can hold. If `None`, any number."""
        return self._model.positions

    def logits(self, encoded: Sequence[Encoded]) -> Any:
        """Pairs of row and logits at its answer positions, [answer tokens, vocabulary]."""
        return answer_logits(self._model, encoded)

    def answered(self, row: Encoded, text: str) -> Encoded:
        """The same record with another answer, encoded as the row was.

        Raises:
            KnowUndoError: how rows are encoded was not told.
        """
        return self._encoded(replace(row.record, answer=text, alternatives=(), facts=()))

    def asked(self, row: Encoded, question: str) -> Encoded:
        """The same record with another question, encoded as the row was.

        Raises:
            KnowUndoError: how rows are encoded was not told.
        """
        return self._encoded(replace(row.record, question=question))

    def about(self, row: Encoded, name: str) -> Encoded | None:
        """The same question and answer about somebody else, encoded as the row was.

        Returns:
            `None` where the question does not name its subject.

        Raises:
            KnowUndoError: how rows are encoded was not told.
        """
        other = renamed(row.record, name)
        return None if other is None else self._encoded(other)

    def _encoded(self, record: Record) -> Encoded:
        if self._encode is None:
            raise KnowUndoError("other answers need Start(…, encode=…), which encodes records")
        return self._encode([record])[0]

    def note(self, text: str) -> None:
        """Tell the user, and put it into the manifest."""
        self._model.notes.add(text)

    def sample(
        self, rows: Sequence[Encoded], *, n: int, temperature: float, seed: int
    ) -> dict[str, list[str]]:
        """`n` answers of the memorized model to each row's question, by record id."""
        return sample(self._model, rows, n=n, temperature=temperature, seed=seed)


class Start:
    """The memorized model, where every method starts, and what is computed of it only once."""

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
            model: the memorized model.
            unlearn_rows: train rows that must go; an epoch is one pass over them.
            retention_rows: by scope, the rows that can fill `step.retention`.
            seed: of the order of rows and of prepared labels; the same for all methods.
            encode: encodes records as the rows were; only other answers need it.
        """
        self.model, self.seed, self._encode = model, seed, encode
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
    def changed(self) -> list[str]:
        """Names of all parameters that can differ from the memorized model's."""
        return list(self._memorized.tensors)

    def restore(self) -> Model:
        """Make the model the memorized one again."""
        self.model.overwrite(self._memorized.tensors)
        return self.model

    @cached_property
    def reference(self) -> Reference:
        """The frozen memorized model at every row that a step can hold.

        Computed on first reading, inside the first step: nothing is swapped under a graph.

        Raises:
            KnowUndoError: weights have moved already.
        """
        own, memorized = self.model.parameters(), self._memorized.tensors
        if not all(torch.equal(own[name].cpu(), value) for name, value in memorized.items()):
            raise KnowUndoError("a loss that reads step.reference must read it in its first step")
        rows = [*self.unlearn_rows, *(row for rows in self.retention_rows.values() for row in rows)]
        return Reference.of(self.model, rows)

    def columns(self, method: Entry, bound: Mapping[str, Any] | None = None) -> Columns:
        """What the method's `prepare` makes of the unlearn rows; call it right after `restore`.

        Args:
            method: its `prepare` is called once for all with equal arguments.
            bound: its hyper-parameters; none: their defaults.
        """
        if method.prepare_function is None:
            return {}
        arguments = method.prepare_arguments(method.bind({}) if bound is None else bound)
        key = method.name, repr(arguments)
        if key not in self._columns:
            made = method.prepare_function(self.unlearn_rows, self._scorer(), **arguments)
            self._columns[key] = made
        return self._columns[key]

    def _scorer(self) -> Scorer:
        return Scorer(self.model, self.seed, self._encode)

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
            self.retention_rows[settings.retain_on],
            size=settings.batch_size,
            retained=settings.retained,
            epochs=settings.epochs,
            seed=self.seed,
            pad=self.model.pad,
        )
        return batches, settings.accumulation

    def optimizer(self, name: str) -> str:
        """The optimizer to train with, where this one is asked for."""
        return name

    def parts(
        self, method: Entry, bound: Mapping[str, Any], batch: PairedBatch, read: set[str]
    ) -> Parts:
        """The method's loss on one micro-batch.

        Args:
            method: its loss is called once.
            bound: its hyper-parameters.
            batch: on any device.
            read: halves that the loss has read before; those that it reads now are added.
        """
        device = self.model.device
        batch = PairedBatch(batch.unlearn.to(device), batch.retention.to(device))
        step = Step(
            self.model,
            batch,
            reference=lambda: self.reference,
            columns=self.columns(method, bound),
            read=frozenset(read),
        )
        parts: Parts = method(step, **bound)
        read.update(step.used)
        return parts
