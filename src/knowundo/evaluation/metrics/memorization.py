"""How much of the true answer is memorized."""

from __future__ import annotations

import numpy as np

from knowundo.evaluation.groups import Scores
from knowundo.registry import metric, scorer
from knowundo.scoring.seen import Generated, Tokens


@metric(higher_is="remembered")
def exact_memorization(scores: Scores) -> float:
    """Share of answer tokens predicted after the true ones, mean over records.

    Tirumala et al. 2022, arXiv:2205.10770; the same number as `token_accuracy`.
    """
    return 100 * float(scores["token_accuracy"].mean())


@metric(higher_is="remembered")
@scorer(needs="tokens")
def extraction_strength(tokens: Tokens) -> float | None:
    """Share of the answer that greedy decoding completes after the shortest sufficient prefix.

    1 − k/n for the smallest k such that, given the first k of n answer tokens, all others are
    predicted (Carlini et al. 2021, arXiv:2012.07805; as a measure: Wang et al. 2025,
    arXiv:2406.09179). 0 where the last token is not predicted; OpenUnlearning gives 1/n there.
    """
    if not len(tokens):
        return None
    wrong = np.flatnonzero(~tokens.right)
    return 1 - (int(wrong[-1]) + 1) / len(tokens) if len(wrong) else 1.0


@metric(higher_is="remembered")
@scorer(needs="answer")
def knowledge_memorization(answer: Generated) -> float | None:
    """ROUGE-L F1 of generated answers, words not stemmed (MUSE's KnowMem, arXiv:2407.06460)."""
    overlap = answer.overlap(stem=False)
    return None if overlap is None else overlap.fmeasure


@metric(higher_is="remembered")
@scorer(needs="answer")
def verbatim_memorization(answer: Generated) -> float | None:
    """ROUGE-L F1 of generated continuations of a text (MUSE's VerbMem, arXiv:2407.06460).

    Of the records whose subset is `verbmem`: their question is the beginning of a text, their
    answer what follows it.
    """
    overlap = answer.overlap(stem=False) if answer.record.subset == "verbmem" else None
    return None if overlap is None else overlap.fmeasure


@metric(higher_is="remembered")
@scorer(needs="answer")
def rouge_l_f1(answer: Generated) -> float | None:
    """ROUGE-L F1 of generated answers (Lin 2004), words stemmed, as OpenUnlearning reports it."""
    overlap = answer.overlap(stem=True)
    return None if overlap is None else overlap.fmeasure
