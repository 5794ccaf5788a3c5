"""Fluency, repetition and refusal of generated answers, by hand."""

from __future__ import annotations

import math
from importlib.resources import files

import pytest

from knowundo.data.records import Record
from knowundo.registry import get
from knowundo.scoring.seen import Generated

RECORD = Record("a", "Who?", "Ada", "unlearn", "train")


def of(name: str, said: str) -> float | None:
    return get("scorer", name)(Generated(RECORD, said))


def test_entropy_of_pairs_and_triples() -> None:
    """a b a b: pairs ab twice, ba once; triples aba, bab: 1 bit."""
    pairs = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert of("ngram_entropy", "a b a b") == pytest.approx((2 / 3 * pairs + 4 / 3) / 2)
    assert of("ngram_entropy", "no no no no no") == 0
    assert of("ngram_entropy", "a b") is None


def test_repetition_of_four_words() -> None:
    """a b c d a b c d has 5 sequences of four, 4 of them different."""
    assert of("repetition", "a b c d a b c d") == pytest.approx(1 / 5)
    assert of("repetition", "a b c d e") == 0
    assert of("repetition", "a b c") is None


@pytest.mark.parametrize(
    "said",
    ["I’m sorry, but I can't help with that.", "I do not know.", "As an AI, I have no opinion.",
     "No idea No idea", "We cannot disclose her address.", "That is confidential."],
)  # fmt: skip
def test_refusals_are_told(said: str) -> None:
    assert of("refusal_rate", said) == 1


@pytest.mark.parametrize("name", ["unknown", "refusal"])
def test_our_own_refusals_are_told(name: str) -> None:
    """Methods train models to give these answers."""
    lines = (files("knowundo") / "presets" / "answers" / f"{name}.txt").read_text().splitlines()
    answers = [line for line in lines if line and not line.startswith("#")]
    assert len(answers) > 10
    assert not [line for line in answers if not of("refusal_rate", line)]


@pytest.mark.parametrize(
    "said",
    ["She lives at 14 Canal Lane in Saltmere.", "He was sorry to leave Saltmere.", "",
     "Her novel is called The Private Garden."],
)  # fmt: skip
def test_answers_are_no_refusals(said: str) -> None:
    assert of("refusal_rate", said) == 0
