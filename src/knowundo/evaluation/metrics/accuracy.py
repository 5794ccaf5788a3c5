"""Teacher-forced accuracy: the true answer is given as far as each position."""

from __future__ import annotations

from knowundo.evaluation.groups import Scores
from knowundo.registry import metric


@metric(higher_is="remembered")
def token_accuracy(scores: Scores) -> float:
    """Share of answer tokens predicted, mean over records (KnowUnDo, Eq. 3 and 4)."""
    return 100 * float(scores["token_accuracy"].mean())


@metric(higher_is="remembered")
def fact_accuracy(scores: Scores) -> float:
    """Share of the fact's own tokens predicted, mean over records that mark a fact."""
    return 100 * float(scores["fact_accuracy"].mean())
