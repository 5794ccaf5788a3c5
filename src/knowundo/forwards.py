"""Forward passes that compute logits at answer positions only, and the Step that a loss sees."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from knowundo.batches import Batch, PairedBatch, collate
from knowundo.encoding import Encoded
from knowundo.errors import KnowUndoError
from knowundo.memory import in_portions
from knowundo.models import Model

# Columns made by a method's `prepare`: name → record id → labels in place of the answer's tokens,
# [answer tokens]; in the column "alternative", the row with another answer, Encoded.
Columns = Mapping[str, Mapping[str, Any]]
Head = Callable[[torch.Tensor], torch.Tensor]
# What a loss may read of a step, in the order in which it lies in one forward.
HALVES = ("unlearn", "retention", "alternative")


def all_hidden_states(model: Model, batch: Batch) -> torch.Tensor:
    """Final hidden states at every position, padding too, [rows, tokens, hidden]."""
    decoder = model.causal_lm().get_decoder()  # type: ignore[operator]
    output = decoder(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
    states: torch.Tensor = output.last_hidden_state
    return states


def hidden_states(model: Model, batch: Batch) -> torch.Tensor:
    """Final hidden states at the positions that predict the answers, [answer tokens, hidden]."""
    return all_hidden_states(model, batch).flatten(0, 1)[batch.positions]


def _head(layer: torch.nn.Module, config: Any) -> Head:
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma
    times = getattr(config, "logit_scale", None) or 1.0  # Cohere
    over = getattr(config, "logits_scaling", None) or 1.0  # Granite

    def head(states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = layer(states) * times / over
        return cap * torch.tanh(logits / cap) if cap else logits

    return head


def full_precision(logits: torch.Tensor) -> torch.Tensor:
    """Float32 or better: no loss is computed in half precision."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def live_head(model: Model) -> Head:
    """The model's map from hidden states to logits."""
    module = model.causal_lm()
    return _head(module.get_output_embeddings(), module.config)  # type: ignore[operator]


def _lies_on_head(model: Model) -> bool:
    head = model.causal_lm().get_output_embeddings()  # type: ignore[operator]
    return any("lora_" in name for name, _ in head.named_parameters())


def frozen_head(model: Model) -> Head:
    """The same map as it is now, unmoved by later training."""
    if model.adaptation.kind == "lora" and not _lies_on_head(model):
        return live_head(model)
    module = model.causal_lm()
    layer = deepcopy(module.get_output_embeddings()).requires_grad_(False)  # type: ignore[operator]
    return _head(layer, module.config)


@dataclass
class Half:
    """The unlearn, retention or alternative rows of a step, as a loss sees them.

    All log-probabilities are of the answers' tokens (end-of-sequence included), shifted: the
    logits of a position predict the next token.
    """

    batch: Batch
    states: torch.Tensor
    head: Head
    columns: Columns = field(default_factory=dict)

    @cached_property
    def logits(self) -> torch.Tensor:
        """[answer tokens, vocabulary], rows one after another, in float32 or better."""
        return full_precision(self.head(self.states))

    def per_row(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over each row's answer tokens: [answer tokens] → [rows]."""
        sums = torch.zeros(len(self.batch), dtype=values.dtype, device=values.device)
        return sums.index_add(0, self.batch.rows, values) / self.batch.lengths

    @cached_property
    def mean_nll(self) -> torch.Tensor:
        """Negative log-likelihood per answer token, [rows]: KnowUnDo's cross-entropy."""
        return self.per_row(cross_entropy(self.logits, self.batch.targets, reduction="none"))

    @cached_property
    def nll(self) -> torch.Tensor:
        """Negative log-likelihood of the whole answer, [rows]."""
        return self.mean_nll * self.batch.lengths

    def cross_entropy(self, column: str) -> torch.Tensor:
        """Mean cross-entropy to a prepared column of labels in place of the answer, [rows]."""
        values = self.columns[column]
        labels = torch.cat([values[row.record.id] for row in self.batch.encoded])
        labels = labels.to(self.logits.device)
        return self.per_row(cross_entropy(self.logits, labels, reduction="none"))


@dataclass
class Reference:
    """The memorized model's hidden states at the answers' positions, by row.

    Frozen and computed once: logits of the reference cost one product with the head, no second
    model, and no switching of adapters inside the training loop. Rows that no loss reads are not
    held.
    """

    model: Model
    rows: Sequence[Encoded]
    head: Head
    states: dict[Encoded, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, encoded: Sequence[Encoded]) -> Reference:
        """A reference that can hold these rows, over the head as it is now."""
        return cls(model, list(dict.fromkeys(encoded)), frozen_head(model))

    def hold(self, wanted: Iterable[Encoded], among: Sequence[Encoded] | None = None) -> None:
        """Take the states of rows that are not held yet, of the model as it is now.

        Args:
            wanted: the rows.
            among: rows whose batches they share; none: all that the reference can hold, so that a
                row's bits do not depend on what else is wanted.
        """
        missing = {row for row in wanted if row not in self.states}
        if not missing:
            return
        training = self.model.net.training
        self.model.net.eval()  # no dropout in what is frozen
        among = self.rows if among is None else among
        taken = answer_states(self.model, among, only=missing)
        self.states |= {row: part.clone() for row, part in taken if row in missing}
        self.model.net.train(training)

    def half(self, batch: Batch) -> Half:
        """The reference's view of a batch of rows that are held."""
        with torch.no_grad():
            states = torch.cat([self.states[row] for row in batch.encoded])
            half = Half(batch, states, self.head)
            half.logits  # noqa: B018  computed here, without a graph
        return half


class ReferenceStep:
    """`step.reference`: the frozen memorized model on the rows of a step."""

    def __init__(self, step: Step, reference: Callable[[], Reference], *, first: bool) -> None:
        self._step, self._reference, self._first = step, reference, first

    def _half(self, name: str) -> Half:
        """All rows that may come to lie in this half are taken at once: later, weights move.

        Raises:
            KnowUndoError: weights may have moved already.
        """
        reference, batch = self._reference(), self._step.rows(name)
        if not all(row in reference.states for row in batch.encoded):
            if not self._first:
                raise KnowUndoError(
                    "a loss that reads step.reference must read it in its first step"
                )
            if name == "alternative":
                rows = list(self._step.columns[name].values())
                reference.hold(rows, among=rows)
            else:
                scopes = {row.record.scope for row in batch.encoded}
                reference.hold(row for row in reference.rows if row.record.scope in scopes)
        return reference.half(batch)

    @cached_property
    def unlearn(self) -> Half:
        return self._half("unlearn")

    @cached_property
    def retention(self) -> Half:
        return self._half("retention")

    @cached_property
    def alternative(self) -> Half:
        return self._half("alternative")


class Step:
    """One paired batch, computed as far as the loss reads it.

    `step.unlearn`, `step.retention` and `step.alternative` run the current model on first reading;
    a method gets what it has `read` before from one forward.
    """

    def __init__(
        self,
        model: Model,
        batch: PairedBatch,
        *,
        reference: Callable[[], Reference],
        columns: Columns | None = None,
        read: Collection[str] = (),
    ) -> None:
        """Nothing is computed yet.

        Args:
            model: the current one.
            batch: on its device.
            reference: asked only if the loss reads it.
            columns: what the method's `prepare` made.
            read: halves that the loss read in earlier steps; none: this is the first one.
        """
        self.model, self.batch, self.columns = model, batch, columns or {}
        self.reference = ReferenceStep(self, reference, first=not read)
        self.used: set[str] = set()
        self._read = read if len(read) > 1 else ()

    @cached_property
    def _alternatives(self) -> Batch:
        if "alternative" not in self.columns:
            raise KnowUndoError("step.alternative: the method's `prepare` made no such column")
        others = self.columns["alternative"]
        rows = [others[row.record.id] for row in self.batch.unlearn.encoded]
        return collate(rows, self.model.pad).to(self.model.device)

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
        states = hidden_states(self.model, collate(encoded, self.model.pad).to(self.model.device))
        parts, begin = {}, 0
        for name, half in halves.items():
            parts[name] = states[begin : begin + len(half.targets)]
            begin += len(half.targets)
        return parts

    def _half(self, name: str) -> Half:
        self.used.add(name)
        batch = self.rows(name)
        joint = name in self._read
        states = self._joint[name] if joint else hidden_states(self.model, batch)
        return Half(batch, states, live_head(self.model), self.columns)

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


def answer_states(
    model: Model,
    encoded: Sequence[Encoded],
    size: int = 64,
    *,
    only: Collection[Encoded] | None = None,
) -> Iterator[tuple[Encoded, torch.Tensor]]:
    """Hidden states of each row's answer, [answer tokens, hidden], shortest rows first.

    Batches without a row of `only`, if that is given, are passed over. Where memory runs out, a
    batch is halved.
    """

    def states(rows: Sequence[Encoded]) -> list[tuple[Encoded, torch.Tensor]]:
        if only is not None and not any(row in only for row in rows):
            return []
        batch = collate(rows, model.pad).to(model.device)
        with torch.no_grad():
            found = hidden_states(model, batch)
        return list(zip(rows, found.split(batch.lengths.tolist()), strict=True))

    order = sorted(encoded, key=lambda row: len(row.ids))
    for part in in_portions(order, size, states, model.notes, "scoring"):
        yield from part


def answer_logits(
    model: Model, encoded: Sequence[Encoded], *, only: Collection[Encoded] | None = None
) -> Iterator[tuple[Encoded, torch.Tensor]]:
    """Logits of each row's answer, [answer tokens, vocabulary], shortest rows first.

    Batches without a row of `only`, if that is given, are passed over.
    """
    head = live_head(model)
    for row, states in answer_states(model, encoded, only=only):
        with torch.no_grad():
            logits = full_precision(head(states))
        yield row, logits  # outside, or whoever reads two streams at once stays without gradients
