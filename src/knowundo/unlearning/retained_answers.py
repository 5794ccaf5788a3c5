"""Answers that must stay: which of them are right, and which a small push would change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from knowundo.data.encoded import Encoded
from knowundo.modeling.model import Model
from knowundo.scoring.teacher_forcing import (
    SURE,
    answer_probability,
    mean_accuracy,
    teacher_forced,
)

# Rows that have to be known if the number of answers lost is to say something: of ten, one alone is
# no more than the floor of an erasure.
LEAST_RIGHT = 10


@dataclass(frozen=True)
class RetainedAnswers:
    """What a model makes of rows that must stay.

    Attributes:
        token_accuracy: Mean over rows, in [0, 1].
        right: Ids of the rows without a wrong token, which greedy decoding answers exactly.
        sure: Of those, the ones whose answer has a probability of at least `SURE`. The others
            change at a small push, so that to lose one shows no damage.
    """

    token_accuracy: float
    right: frozenset[str]
    sure: frozenset[str]

    @classmethod
    def of(cls, model: Model, rows: Sequence[Encoded]) -> RetainedAnswers:
        """Measure a model, which is not changed."""
        forced = teacher_forced(model, rows)
        right = {name for name, row in forced.items() if row["token_accuracy"] == 1}
        sure = {
            row.record.id
            for row in rows
            if row.record.id in right and answer_probability(row, forced[row.record.id]) >= SURE
        }
        return cls(mean_accuracy(forced.values()), frozenset(right), frozenset(sure))

    def lost(self, known: frozenset[str]) -> float | None:
        """Percent of known rows that are no longer right; `None` of fewer than `LEAST_RIGHT`."""
        if len(known) < LEAST_RIGHT:
            return None
        # As 100 / rows, which a floor may be: through the share that is kept it would round.
        return 100 * len(known - self.right) / len(known)
