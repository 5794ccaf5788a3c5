"""One half of a step as a loss sees it: likelihoods and divergences of its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch.nn.functional import cross_entropy, kl_div

from knowundo.data.batches import Batch
from knowundo.data.encoded import Encoded
from knowundo.modeling.fast.chunked_logits import by_token, full_precision, portion
from knowundo.modeling.head import Head

# Columns made by a method's `prepare`: name → record id → labels in place of the answer's tokens,
# [answer tokens]; in the column "alternative", the row with another answer, Encoded.
Columns = Mapping[str, Mapping[str, Any]]


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
        """[answer tokens, vocabulary], rows one after another, in float32 or better.

        All at once: what can be said token by token should be (`by_token`), in a fraction of the
        memory.
        """
        return full_precision(self.head(self.states))

    def by_token(
        self, function: Callable[..., tuple[torch.Tensor, ...]], *given: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """What a function makes of each token's logits, a portion of the tokens at a time.

        Args:
            function: logits [tokens, vocabulary] and a portion of `given` → numbers, [tokens] each;
                gradients flow through the first of them.
            given: [answer tokens, …] each, without gradients.
        """

        def of_states(states: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return function(full_precision(self.head(states)), *rest)

        size, frozen = portion(self.head.vocabulary), self.head.frozen
        return by_token(self.states, of_states, *given, size=size, frozen=frozen)

    def mean(
        self, values: torch.Tensor, *, over: Literal["rows", "tokens"] = "rows"
    ) -> torch.Tensor:
        """Sum of values, divided by the count of the whole batch.

        A step may see a part of the batch only: then its value is that part's share of the mean,
        so that micro-batches add up to the batch.

        Args:
            values: [rows], or [answer tokens] if the mean is over tokens.
            over: what is counted.
        """
        rows = self.batch.whole
        count = len(rows) if over == "rows" else sum(row.answer_length for row in rows)
        return values.sum() / count

    def per_row(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over each row's answer tokens: [answer tokens] → [rows]."""
        sums = torch.zeros(len(self.batch), dtype=values.dtype, device=values.device)
        return sums.index_add(0, self.batch.rows, values) / self.batch.lengths

    @cached_property
    def _predicted(self) -> tuple[torch.Tensor, ...]:
        return self.by_token(_predicted, self.batch.targets)

    @property
    def token_nll(self) -> torch.Tensor:
        """Negative log-likelihood of each answer token, [answer tokens]."""
        return self._predicted[0]

    @cached_property
    def mean_nll(self) -> torch.Tensor:
        """Negative log-likelihood per answer token, [rows]: KnowUnDo's cross-entropy."""
        return self.per_row(self._predicted[0])

    @property
    def right(self) -> torch.Tensor:
        """Whether the token to predict was the most likely one, [answer tokens]."""
        return self._predicted[1]

    @cached_property
    def nll(self) -> torch.Tensor:
        """Negative log-likelihood of the whole answer, [rows]."""
        return self.mean_nll * self.batch.lengths

    def cross_entropy(self, column: str) -> torch.Tensor:
        """Mean cross-entropy to a prepared column of labels in place of the answer, [rows]."""
        values = self.columns[column]
        labels = torch.cat([values[row.record.id] for row in self.batch.encoded])
        return self.per_row(self.by_token(_predicted, labels.to(self.states.device))[0])

    def against(
        self,
        memorized: Half,
        function: Callable[..., tuple[torch.Tensor, ...]],
        *given: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """What a function makes of each token's logits and those of the frozen model.

        A portion of the tokens at a time, as in `by_token`.

        Args:
            memorized: The same rows, seen by the frozen model.
            function: Logits [tokens, vocabulary], the frozen model's logits of the same shape, and
                a portion of `given` → numbers, [tokens] each; gradients flow through the first of
                them, and into the first logits only.
            given: [answer tokens, …] each, without gradients.
        """

        def both(
            logits: torch.Tensor, states: torch.Tensor, *rest: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            with torch.no_grad():
                before = full_precision(memorized.head(states))
            return function(logits, before, *rest)

        return self.by_token(both, memorized.states, *given)

    def divergence_from(self, memorized: Half) -> torch.Tensor:
        """KL(memorized ‖ current), mean over each row's answer tokens, [rows].

        Args:
            memorized: the same rows, seen by the frozen model.
        """
        return self.per_row(self.against(memorized, _divergence)[0])


def _divergence(logits: torch.Tensor, before: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """KL(memorized ‖ current) of each token."""
    now, before = logits.log_softmax(-1), before.log_softmax(-1)
    return (kl_div(now, before, reduction="none", log_target=True).sum(-1),)


def _predicted(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cross-entropy of each token, and whether it was the most likely one."""
    return cross_entropy(logits, labels, reduction="none"), logits.detach().argmax(-1) == labels


@dataclass
class HeldHalf(Half):
    """The reference's view of rows: their likelihoods are computed once a row."""

    known: dict[Encoded, torch.Tensor] = field(default_factory=dict)

    @cached_property
    def mean_nll(self) -> torch.Tensor:
        """Mean negative log-likelihood of each row's answer, [rows]; computed once a row."""
        parts = self.states.split(self.batch.lengths.tolist())
        targets = self.batch.targets.split(self.batch.lengths.tolist())
        for row, states, labels in zip(self.batch.encoded, parts, targets, strict=True):
            if row not in self.known:  # alone: its bits depend on no other row
                with torch.no_grad():
                    logits = full_precision(self.head(states))
                    self.known[row] = cross_entropy(logits, labels)
        return torch.stack([self.known[row] for row in self.batch.encoded])
