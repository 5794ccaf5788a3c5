"""Forward passes that compute logits at answer positions only, and the Step that a loss sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from knowundo.batches import Batch, PairedBatch, by_length, collate
from knowundo.encoding import Encoded
from knowundo.models import Model

# Columns made by a method's `prepare`: name → record id → [answer tokens].
Columns = Mapping[str, Mapping[str, torch.Tensor]]
Head = Callable[[torch.Tensor], torch.Tensor]


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


def frozen_head(model: Model) -> Head:
    """The same map as it is now, unmoved by later training."""
    if model.adaptation.kind == "lora":
        return live_head(model)  # no LoRA lies on it
    module = model.causal_lm()
    layer = deepcopy(module.get_output_embeddings()).requires_grad_(False)  # type: ignore[operator]
    return _head(layer, module.config)


@dataclass
class Half:
    """The unlearn or the retention rows of a step, as a loss sees them.

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
    """The memorized model's hidden states at the answers' positions, by record id.

    Frozen and computed once: logits of the reference cost one product with the head, no second
    model, and no switching of adapters inside the training loop.
    """

    states: dict[str, torch.Tensor]
    head: Head

    @classmethod
    def of(cls, model: Model, encoded: Sequence[Encoded]) -> Reference:
        """Take the states of the model as it is now."""
        unique = list({row.record.id: row for row in encoded}.values())
        training = model.net.training
        model.net.eval()  # no dropout in what is frozen
        states = {row.record.id: part for row, part in answer_states(model, unique)}
        model.net.train(training)
        return cls(states, frozen_head(model))

    def half(self, batch: Batch) -> Half:
        """The reference's view of a batch."""
        with torch.no_grad():
            states = torch.cat([self.states[row.record.id] for row in batch.encoded])
            half = Half(batch, states, self.head)
            half.logits  # noqa: B018  computed here, without a graph
        return half


class ReferenceStep:
    """`step.reference`: the frozen memorized model on both halves."""

    def __init__(self, batch: PairedBatch, reference: Callable[[], Reference]) -> None:
        self._batch, self._reference = batch, reference

    @cached_property
    def unlearn(self) -> Half:
        return self._reference().half(self._batch.unlearn)

    @cached_property
    def retention(self) -> Half:
        return self._reference().half(self._batch.retention)


class Step:
    """One paired batch, computed as far as the loss reads it.

    `step.unlearn` and `step.retention` run the current model on first reading; a method that
    reads both gets both from one forward once `both` says so.
    """

    def __init__(
        self,
        model: Model,
        batch: PairedBatch,
        *,
        reference: Callable[[], Reference],
        columns: Columns | None = None,
        both: bool = False,
    ) -> None:
        self.model, self.batch, self.columns = model, batch, columns or {}
        self.reference = ReferenceStep(batch, reference)
        self.used: set[str] = set()
        self._both = both

    @cached_property
    def _joint(self) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = self.batch.unlearn, self.batch.retention
        batch = collate([*first.encoded, *second.encoded], self.model.pad).to(self.model.device)
        states = hidden_states(self.model, batch)
        cut = len(first.targets)
        return states[:cut], states[cut:]

    def _half(self, name: str) -> Half:
        self.used.add(name)
        batch: Batch = getattr(self.batch, name)
        if self._both:
            states = self._joint[0 if name == "unlearn" else 1]
        else:
            states = hidden_states(self.model, batch)
        return Half(batch, states, live_head(self.model), self.columns)

    @cached_property
    def unlearn(self) -> Half:
        """The current model on rows that must go."""
        return self._half("unlearn")

    @cached_property
    def retention(self) -> Half:
        """The current model on rows that must stay."""
        return self._half("retention")


Parts = dict[str, torch.Tensor]


@torch.no_grad()
def answer_states(
    model: Model, encoded: Sequence[Encoded], size: int = 64
) -> Iterator[tuple[Encoded, torch.Tensor]]:
    """Hidden states of each row's answer, [answer tokens, hidden], shortest rows first."""
    for batch in by_length(encoded, size, model.pad):
        states = hidden_states(model, batch.to(model.device))
        yield from zip(batch.encoded, states.split(batch.lengths.tolist()), strict=True)


def answer_logits(
    model: Model, encoded: Sequence[Encoded]
) -> Iterator[tuple[Encoded, torch.Tensor]]:
    """Logits of each row's answer, [answer tokens, vocabulary], shortest rows first."""
    head = live_head(model)
    for row, states in answer_states(model, encoded):
        with torch.no_grad():
            logits = full_precision(head(states))
        yield row, logits  # outside, or whoever reads two streams at once stays without gradients
