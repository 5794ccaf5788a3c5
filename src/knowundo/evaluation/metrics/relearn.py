"""ReLearn's rates of forgotten and retained knowledge (Xu et al. 2025, arXiv:2502.11190).

ReLearn has a model name the entities of both answers, compares their embeddings, and asks another
model whether the answers contradict each other. Here the entities are the facts that the benchmark
marks, a fact is in an answer if its words are, in a row, and contradictions are not looked for: it
needs no other model, and its values are not comparable with the paper's.
"""

from __future__ import annotations

from knowundo.data.wording import holds_words, split_words
from knowundo.registry import metric, scorer
from knowundo.scoring.seen import Generated

# Shares of the facts; the second for answers of at most three.
_FEW, _FORGOTTEN, _FORGOTTEN_OF_FEW, _RETAINED = 3, 0.3, 0.5, 0.3


def _share(answer: Generated) -> float | None:
    """Share of the record's marked facts that an answer holds."""
    said = split_words(answer.said)
    facts = [words for fact in answer.record.facts if (words := split_words(fact))]
    return sum(holds_words(said, fact) for fact in facts) / len(facts) if facts else None


@metric(higher_is="forgotten")
@scorer(needs="answer")
def knowledge_forgetting_rate(answer: Generated) -> float | None:
    """KFR: answers that hold at most 30 % of the facts, or half of three and fewer."""
    share = _share(answer)
    few = len(answer.record.facts) <= _FEW
    most = _FORGOTTEN_OF_FEW if few else _FORGOTTEN
    return None if share is None else float(share <= most)


@metric(higher_is="remembered")
@scorer(needs="answer")
def knowledge_retention_rate(answer: Generated) -> float | None:
    """KRR: answers that hold at least 30 % of the facts."""
    share = _share(answer)
    return None if share is None else float(share >= _RETAINED)
