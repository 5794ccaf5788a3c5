"""How a model answers, whatever it knows: varied, repeating itself, refusing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np

from knowundo.data.wording import folded, split_words
from knowundo.registry import metric, scorer
from knowundo.scoring.seen import Generated


def _grams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]


def _entropy(grams: Sequence[tuple[str, ...]]) -> float:
    """Of the frequencies, in bits."""
    shares = np.array(list(Counter(grams).values())) / len(grams)
    return float(-(shares * np.log2(shares)).sum())


@metric(higher_is="fluent", unit="ratio")
@scorer(needs="answer")
def ngram_entropy(answer: Generated) -> float | None:
    """Entropy of pairs and triples of words in bits, (2/3 H₂ + 4/3 H₃) / 2; low if they repeat.

    Fluency as Meng et al. 2022, arXiv:2202.05262, weigh it (after Zhang et al. 2018) and RWKU
    reports it. Of answers of three words or more; it grows with the length of an answer.
    """
    words = split_words(answer.said)
    if len(words) < 3:
        return None
    return (2 / 3 * _entropy(_grams(words, 2)) + 4 / 3 * _entropy(_grams(words, 3))) / 2


@metric(higher_is="damaged")
@scorer(needs="answer")
def repetition(answer: Generated) -> float | None:
    """Share of four-word sequences that occurred before (Welleck et al. 2020, arXiv:1908.04319).

    Of answers of four words or more.
    """
    grams = _grams(split_words(answer.said), 4)
    return 1 - len(set(grams)) / len(grams) if grams else None


@cache
def _refusals() -> re.Pattern[str]:
    """A pattern a line of refusals.txt."""
    lines = (files(__package__) / "refusals.txt").read_text(encoding="utf-8").split("\n")
    return re.compile("|".join(f"(?:{line})" for line in lines if line))


@metric(higher_is="refused")
@scorer(needs="answer")
def refusal_rate(answer: Generated) -> float:
    """Share of answers with a phrase of refusal, in English; a refusal shows no forgetting."""
    return float(_refusals().search(folded(answer.said).replace("’", "'")) is not None)
