"""One half of a step as a loss sees it: likelihoods and divergences of its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal

import torch
from torch.nn.functional import cross_entropy, kl_div

from knowundo.data.batches import Batch
from knowundo.data.encoded import Encoded
from knowundo.errors import KnowUndoError
from knowundo.modeling.fast.chunked_logits import by_token, full_precision, portion
from knowundo.modeling.head import Head

# Columns made by a method's `prepare`: name → record id → labels in place of the answer's tokens,
# [answer tokens]; in the column "alternative", the row with another answer, Encoded, or a tuple of
# such rows, of which each epoch takes the next one.
Columns = Mapping[str, Mapping[str, Any]]


class Half:
    """The unlearn, retention or alternative rows of a step, as a loss sees them.

    All log-probabilities are of the answers' tokens (end-of-sequence included), shifted: the
    logits of a position predict the next token.
    """

    def __init__(
        self,
        batch: Batch,
        states: torch.Tensor | Callable[[], torch.Tensor],
        head: Head,
        columns: Columns | None = None,
        layer: Callable[[int], torch.Tensor] | None = None,
    ) -> None:
        """Compute nothing yet.

        Args:
            batch: The rows.
            states: Final hidden states at the positions that predict the answers,
                [answer tokens, hidden], or a function that computes them on first reading.
            head: Maps them to logits.
            columns: What the method's `prepare` made.
            layer: Computes the hidden states after a decoder layer at the same positions. If
                `None`, `layer()` raises.
        """
        self.batch, self.head = batch, head
        self.columns: Columns = columns or {}
        self._states, self._layer = states, layer
        self._layers: dict[int, torch.Tensor] = {}
        # A loss may read states first where gradients are off, and again where they are on.
        self._grad = torch.is_grad_enabled()

    @cached_property
    def states(self) -> torch.Tensor:
        """Final hidden states at the positions that predict the answers, [tokens, hidden]."""
        if isinstance(self._states, torch.Tensor):
            return self._states
        with torch.set_grad_enabled(self._grad):
            return self._states()

    def layer(self, number: int) -> torch.Tensor:
        """Hidden states after a decoder layer at the same positions, [answer tokens, hidden].

        Before the final norm, as the layer returns them: `output_hidden_states[number + 1]` of
        transformers, but for the last layer. Only the layers up to this one run, apart from the
        forward that gives `states`.

        Args:
            number: Of the layer, from 0.

        Raises:
            BadInput: The model has no such layer, or no gradient reaches it in training.
            KnowUndoError: These rows were computed without access to layers.
        """
        if self._layer is None:
            raise KnowUndoError("this Half has final hidden states only; read layers of a Step's")
        if number not in self._layers:
            with torch.set_grad_enabled(self._grad):
                self._layers[number] = self._layer(number)
        return self._layers[number]

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

    def column(self, name: str) -> torch.Tensor:
        """A prepared column of these rows with values for each token, [answer tokens, …]."""
        values = self.columns[name]
        found = torch.cat([values[row.record.id] for row in self.batch.encoded])
        return found.to(self.batch.targets.device)

    def cross_entropy(self, column: str) -> torch.Tensor:
        """Mean cross-entropy to a prepared column of labels in place of the answer, [rows]."""
        return self.per_row(self.by_token(_predicted, self.column(column))[0])

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


class HeldHalf(Half):
    """The reference's view of rows: their likelihoods are computed once a row."""

    def __init__(
        self,
        batch: Batch,
        states: Callable[[], torch.Tensor],
        head: Head,
        known: dict[Encoded, torch.Tensor],
        layer: Callable[[int], torch.Tensor],
    ) -> None:
        """Compute nothing yet.

        Args:
            batch: The rows.
            states: Returns the held final hidden states.
            head: Of the frozen model.
            known: Mean likelihoods by row; those that are computed here are added.
            layer: Returns the held hidden states after a layer.
        """
        super().__init__(batch, states, head, layer=layer)
        self.known = known

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
