"""What the model says: by itself, decoded greedily, and when the true answer is given."""

from __future__ import annotations

from knowundo.evaluation.groups import Scores
from knowundo.registry import metric


@metric(higher_is="remembered")
def exact_match(scores: Scores) -> float:
    """Share of generated answers that equal the true one, but for space around it."""
    return 100 * float(scores["exact_match"].mean())


@metric(higher_is="remembered")
def rouge_l(scores: Scores) -> float:
    """ROUGE-L recall of generated answers (Lin 2004; recall as in TOFU, arXiv:2401.06121)."""
    return 100 * float(scores["rouge_l"].mean())


@metric(higher_is="remembered")
def forced_rouge_l(scores: Scores) -> float:
    """ROUGE-L recall of each place's likeliest token, as KnowUnDo most likely computes it.

    Its repository saves only such teacher-forced predictions, and no generated answer.
    """
    return 100 * float(scores["forced_rouge_l"].mean())
