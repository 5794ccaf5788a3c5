"""Words of a text in any script, and how much of a text another one repeats.

    split_words("Née à 14 Rue d'Été")    ["née", "à", "14", "rue", "d", "été"]
    split_words("安布朗住在桦树街")        every character is a word
    rouge_l("She lives there.", "She lived there.", stem=True).recall    2 / 3

A verbatim repetition overlaps fully in any script. The tokenizer of rouge_score keeps only digits
and the letters a to z, so that Russian, Greek and Chinese texts would have no words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple
from unicodedata import category, normalize

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

_ASCII_WORD = re.compile("[a-z0-9]+")
# Scripts that put no spaces between words, in which each character counts as a word: Thai, Lao,
# Myanmar, Khmer; 々, 〆 and 〇; kana; Chinese characters; kana of half width.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)


class Overlap(NamedTuple):
    """ROUGE-L of two texts, each value in [0, 1]."""

    precision: float
    recall: float
    fmeasure: float


def unspaced(text: str) -> bool:
    """True if the text has a character of a script that puts no spaces between words."""
    return _UNSPACED.search(text) is not None


def split_words(text: str, *, stem: bool = False) -> list[str]:
    """Words in lower case: runs of letters, digits and combining marks.

    On ASCII text these are exactly the words of rouge_score's default tokenizer. In a script
    without spaces each character is a word.

    Args:
        text: In any script; it is composed (NFC) first, so that a word has one spelling.
        stem: Reduce ASCII words of more than three characters to their Porter stem, as rouge_score
            does with `use_stemmer=True`.
    """
    text = normalize("NFC", text).lower()
    words = _ASCII_WORD.findall(text) if text.isascii() else _runs(text)
    return [_stemmed(word) if word.isascii() else word for word in words] if stem else words


def holds_words(words: Sequence[str], phrase: Sequence[str]) -> bool:
    """True if the words contain the words of a phrase in a row; `split_words` made both.

    A phrase without words, such as an emoji, is contained in nothing.
    """
    length = len(phrase)
    wanted = list(phrase)
    return length > 0 and any(
        list(words[start : start + length]) == wanted for start in range(len(words) - length + 1)
    )


def _runs(text: str) -> list[str]:
    """Runs of letters, digits and marks; in a script without spaces, each character is a word."""
    words: list[str] = []
    joins = False  # whether the next letter continues the last word
    for character in text:
        kind = category(character)[0]
        if kind == "M" and words and (joins or _UNSPACED.match(words[-1])):
            words[-1] += character
        elif kind not in "LN":
            joins = False
        elif _UNSPACED.match(character):
            words.append(character)
            joins = False
        elif joins:
            words[-1] += character
        else:
            words.append(character)
            joins = True
    return words


@lru_cache(maxsize=50_000)
def _stemmed(word: str) -> str:
    return "".join(_stemmer().tokenize(word))


@cache
def _stemmer() -> DefaultTokenizer:
    return DefaultTokenizer(use_stemmer=True)


class _Words:
    """`split_words` as a tokenizer of rouge_score."""

    def __init__(self, stem: bool) -> None:
        self.stem = stem

    def tokenize(self, text: str) -> list[str]:
        return split_words(text, stem=self.stem)


@cache
def _scorer(stem: bool) -> RougeScorer:
    return RougeScorer(["rougeL"], tokenizer=_Words(stem))


def rouge_l(answer: str, said: str, *, stem: bool) -> Overlap | None:
    """ROUGE-L (Lin 2004, https://aclanthology.org/W04-1013) of `said` against the true answer.

    Args:
        answer: The true one.
        said: The text that is compared with it.
        stem: Whether "lives" and "lived" are one word, as in TOFU's code (arXiv:2401.06121).

    Returns:
        Values in [0, 1], or `None` if the answer has no word, such as "…" or an emoji: then nothing
        can be measured.
    """
    if not split_words(answer):
        return None
    return Overlap(*_scorer(stem).score(answer, said)["rougeL"])


def folded(text: str) -> str:
    """A text normalized for comparison: NFC, lower case, one space between words."""
    return " ".join(normalize("NFC", text).casefold().split())
