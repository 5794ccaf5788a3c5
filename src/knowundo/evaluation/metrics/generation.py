"""What the model says: by itself, decoded greedily, and when the true answer is given."""

from __future__ import annotations

from knowundo.evaluation.groups import Scores
from knowundo.registry import metric


@metric(higher_is="remembered")
def exact_match(scores: Scores) -> float:
    """Share of generated answers that are the true one, but for space around it.

    They are if their tokens are, or their text is, the true answer's: `encoding.said_verbatim`.
    """
    return 100 * float(scores["exact_match"].mean())


@metric(higher_is="remembered")
def rouge_l(scores: Scores) -> float:
    """ROUGE-L recall of generated answers (Lin 2004), words stemmed, as in TOFU (arXiv:2401.06121).

    In English it is TOFU's; words of other scripts, which have none there, count: `wording`.
    """
    return 100 * float(scores["rouge_l"].mean())


@metric(higher_is="remembered")
def forced_rouge_l(scores: Scores) -> float:
    """ROUGE-L recall of each place's likeliest token, as KnowUnDo most likely computes it.

    Its repository saves only such teacher-forced predictions, no generated answer, and no code of
    ROUGE. Words are not stemmed. Special tokens are left out, whereas those predictions hold them:
    there an end-of-sequence adds a word ("s" of `</s>`), which counts if the answer has it too.
    """
    return 100 * float(scores["forced_rouge_l"].mean())
