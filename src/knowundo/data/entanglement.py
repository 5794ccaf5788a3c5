"""How much two scopes have in common: words, weighted words and names, each from 0 to 1.

The three figures that Toufikuzzaman et al. 2026, arXiv:2608.22557, print of benchmarks: `tfidf` is
the cosine of the scopes' mean TF-IDF vectors, `vocabulary` the Jaccard index of their words, and
`names` that of their names. High values mean that unlearning one scope is likely to hurt the other.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from knowundo.data.records import Record

# Words and pairs of words that the vectors have: the most frequent ones.
FEATURES = 10_000
_WORD = re.compile(r"\w\w+")
# A name: capitalised words in a row, with function words between them. What begins a sentence has a
# capital letter anyway, so it is none.
_CAPITALISED = r"[A-ZÀ-Þ][\w’'-]*\w"
_NAME = re.compile(
    rf"(?<![.!?] )(?<![\"“])(?<!^){_CAPITALISED}"
    rf"(?:(?: (?:of|the|de|da|von|van|al|bin))* {_CAPITALISED})*",
    re.MULTILINE,
)
# Function words, which say nothing of what a row is about.
_FUNCTION_WORDS = """
    a about above after again against all almost also although always am among an and another any
    are as at be became because become been before being below between both but by can could did do
    does doing down during each either else even ever every few first for from further had has have
    having he hence her here hers herself him himself his how however i if in indeed into is it its
    itself last least less made many may me might more most much must my myself neither never no nor
    not nothing now of off often on once one only or other others our ours out over own part per
    perhaps please quite rather same several she should since so some such than that the their
    theirs them themselves then there therefore these they this those though through throughout thus
    to together too toward towards two under until up upon us very was we well were what whatever
    when where whether which while who whole whom whose why will with within without would yet you
    your yours
"""
_LEFT_OUT = frozenset(_FUNCTION_WORDS.split())


def entanglement(first: Sequence[Record], second: Sequence[Record]) -> dict[str, float | None]:
    """The three figures of the rows of two scopes.

    Returns:
        `tfidf`, `vocabulary` and `names`; `None` where neither scope has any of it.
    """
    texts = [[_text(record) for record in scope] for scope in (first, second)]
    words = [{word for text in scope for word in _words(text)} for scope in texts]
    names = [{name for record in scope for name in _names(record)} for scope in (first, second)]
    return {"tfidf": _cosine(*texts), "vocabulary": _jaccard(*words), "names": _jaccard(*names)}


def _text(record: Record) -> str:
    return f"{record.question} {record.answer}".strip()


def _names(record: Record) -> set[str]:
    told = (name for text in (record.question, record.answer) for name in _NAME.findall(text))
    return {re.sub(r"['’]s$", "", name) for name in told}


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _jaccard(first: set[str], second: set[str]) -> float | None:
    both = first | second
    return len(first & second) / len(both) if both else None


def _terms(text: str) -> Counter[str]:
    """Words without function words, and pairs of those that follow each other."""
    words = [word for word in _words(text) if word not in _LEFT_OUT]
    return Counter([*words, *(" ".join(pair) for pair in pairwise(words))])


def _cosine(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Cosine of the mean of the rows' TF-IDF vectors, each of length 1.

    The weight of a term is its count times ln((1 + rows) / (1 + rows that have it)) + 1.
    """
    rows = [[_terms(text) for text in scope] for scope in (first, second)]
    every = [row for scope in rows for row in scope]
    total: Counter[str] = Counter()
    for row in every:
        total.update(row)
    kept = {term for term, _ in total.most_common(FEATURES)}
    having = Counter(term for row in every for term in row)
    weights = {term: math.log((1 + len(every)) / (1 + having[term])) + 1 for term in kept}
    one, other = (_mean(scope, weights) for scope in rows)
    lengths = math.hypot(*one.values()) * math.hypot(*other.values())
    return sum(v * other.get(term, 0.0) for term, v in one.items()) / lengths if lengths else None


def _mean(rows: Iterable[Counter[str]], weights: dict[str, float]) -> dict[str, float]:
    """The sum of the rows' vectors, each of length 1; its length does not matter to a cosine."""
    found: dict[str, float] = {}
    for row in rows:
        vector = {term: n * weights[term] for term, n in row.items() if term in weights}
        length = math.hypot(*vector.values()) or 1.0
        for term, value in vector.items():
            found[term] = found.get(term, 0.0) + value / length
    return found
