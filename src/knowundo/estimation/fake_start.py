"""Starts of unlearning on a model of fake tensors, which hold no numbers to compare or to sample.

A start is what losses read beside the model: the frozen reference, answers, columns of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from knowundo.data.encoded import Encoded
from knowundo.data.records import Record
from knowundo.modeling.forward import Forward, answer_states
from knowundo.modeling.reference import Reference
from knowundo.unlearning.original.start import OriginalStart
from knowundo.unlearning.scorer import Scorer
from knowundo.unlearning.start import Start


class _EchoScorer(Scorer):
    """Samples of a model that cannot speak: as long as the true answers, of the same words.

    Only the length of a sample matters here, and a real model's samples are about as long.
    """

    def sample(self, rows: Sequence[Encoded], *, n: int, **_: Any) -> dict[str, list[str]]:
        """The same made-up answer `n` times for each row."""
        return {row.record.id: [_reversed_words(row.record)] * n for row in rows}

    def answers(self, rows: Sequence[Encoded]) -> dict[str, str]:
        """A made-up answer for each row."""
        return {row.record.id: _reversed_words(row.record) for row in rows}

    def mean_nll(self, rows: Sequence[Encoded]) -> dict[str, float]:
        """All answers are equally likely."""
        return {row.record.id: 0.0 for row in rows}

    def reinforced(self, rows: Sequence[Encoded], **_: Any) -> dict[str, torch.Tensor]:
        """States of the model as it is, which have the same size; its training is not counted."""
        found = answer_states(Forward(self._model), rows)
        return {row.record.id: states.clone() for row, states in found}


def _reversed_words(record: Record) -> str:
    """The answer with its words, and the letters of its facts, in reverse: it holds no fact."""
    text = record.answer
    for fact in record.facts:
        text = text.replace(fact, fact[::-1])
    return " ".join(reversed(text.split()))


def _unseen_bytes(states: Mapping[Encoded, torch.Tensor], every: Sequence[Encoded]) -> int:
    """Bytes of states, [answer tokens, hidden] each, of the rows that are not among these."""
    one = next(iter(states.values()))
    scopes, seen = {row.record.scope for row in states}, {row.record.id for row in states}
    unseen = {
        row.record.id: row.answer_length
        for row in every
        if row.record.scope in scopes and row.record.id not in seen
    }
    return sum(unseen.values()) * one.shape[1] * one.element_size()


class FakeStart(Start):
    """A start that takes the reference without comparing weights, since fake ones have no values.

    It is made of the rows of a few batches, and tells what it would hold of all rows.
    """

    @cached_property
    def reference(self) -> Reference:
        """The frozen reference over the rows of this start."""
        rows = [*self.unlearn_rows, *(row for rows in self.retention_rows.values() for row in rows)]
        return Reference.of(self.model, rows)

    def unseen_bytes(self, every: Sequence[Encoded], retained: Sequence[Encoded]) -> int:
        """Bytes of reference states that would be held of rows that this start was not given.

        Args:
            every: rows of all scopes.
            retained: rows that fill the retention half.
        """
        if "reference" not in vars(self):
            return 0
        held = [self.reference.states, *self.reference.layers.values()]
        return sum(_unseen_bytes(states, every) for states in held if states)

    def scorer(self) -> Scorer:
        """What a `prepare` may ask of a model that has no values."""
        kept = self.retention_rows.get("retention", ())
        return _EchoScorer(self.model, self.seed, self.encode, retention=kept)


class FakeOriginalStart(FakeStart, OriginalStart):
    """The same for the original code's batches, whose reference may hold states of every token."""

    def unseen_bytes(self, every: Sequence[Encoded], retained: Sequence[Encoded]) -> int:
        """See `FakeStart.unseen_bytes`; states of every token of the retained rows come on top."""
        held = [] if self.divergence is None else list(self.divergence.states.values())
        one = held[0].nbytes if held else 0
        return super().unseen_bytes(every, retained) + one * (len(retained) - len(held))
