"""Words in any script, and ROUGE-L over them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from knowundo.data.wording import folded, rouge_l, split_words, unspaced

ASCII = st.text(st.characters(max_codepoint=127), max_size=60)


@settings(max_examples=100, deadline=None)
@given(ASCII, ASCII, st.booleans())
def test_ascii_is_as_in_rouge_score(answer: str, said: str, stem: bool) -> None:
    assert split_words(answer, stem=stem) == DefaultTokenizer(stem).tokenize(answer)
    ours = rouge_l(answer, said, stem=stem)
    theirs = RougeScorer(["rougeL"], use_stemmer=stem).score(answer, said)["rougeL"]
    assert ours == (tuple(theirs) if split_words(answer) else None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Née à l’Été_14", ["née", "à", "l", "été", "14"]),
        ("ne\u0301e", ["née"]),
        ("安布朗住 A1。", ["安", "布", "朗", "住", "a1"]),
        ("Ада Брун", ["ада", "брун"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),  # vowel signs are marks, not letters
        ("ที่อยู่", ["ที่", "อ", "ยู่"]),
        ("한국어 말", ["한국어", "말"]),
        ("🙂 — …", []),
    ],
)
def test_words_of_other_scripts(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@pytest.mark.parametrize("text", ["安布朗住在桦树街。", "Ада Брун живёт.", "Η Άντα μένει", "هنا"])
def test_what_is_said_verbatim_overlaps_wholly(text: str) -> None:
    assert rouge_l(text, text, stem=True) == (1, 1, 1)
    assert rouge_l(text, "no", stem=True) == (0, 0, 0)


def test_half_of_a_chinese_answer_is_half_said() -> None:
    overlap = rouge_l("桦树街十", "桦街", stem=False)
    assert overlap is not None
    assert (overlap.precision, overlap.recall) == (1, 0.5)


def test_stems_count_as_one_word_where_asked() -> None:
    answer, said = "She lives there", "She lived there"
    assert [rouge_l(answer, said, stem=s)[1] for s in (True, False)] == [1, pytest.approx(2 / 3)]


def test_an_answer_without_words_is_not_measured() -> None:
    assert rouge_l("🙂", "🙂", stem=False) is None


def test_folded_and_unspaced() -> None:
    assert folded(" NE\u0301E  à\nParis") == folded("née à paris")
    assert [unspaced(t) for t in ("安", "か", "한국", "Ада", "ที่")] == [
        True,
        True,
        False,
        False,
        True,
    ]
