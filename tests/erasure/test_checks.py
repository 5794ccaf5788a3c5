"""Repeats, contradictions and guesses in lists are found before anything is changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.data.records import Record
from knowundo.erasure.checks import (
    STRANGERS,
    guessed,
    same_answers,
    short,
    similar_questions,
    without_repeats,
)
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from named_rows import CLARA, MAIL


def test_lists_are_checked_against_each_other() -> None:
    again = Record("3", CLARA.question.upper(), CLARA.answer, "unlearn", "train")
    kept, repeated = without_repeats([CLARA, MAIL, again])
    assert kept == [CLARA, MAIL]
    assert repeated == [["1", "3"]]
    stay = Record("s", "Where does Clara Dorin live now?", "x", "retention", "train")
    assert similar_questions([CLARA, MAIL], [stay]) == [["1", "s"]]
    both = Record("s", CLARA.question, "x", "retention", "train")
    with pytest.raises(BadInput, match="stands in the retention list too"):
        similar_questions([CLARA], [both])


def retention(answer: str, subject: str = "Ivo Lund") -> Record:
    return Record("s", "Where?", answer, "retention", "train", subject=subject)


def test_a_retention_row_with_an_answer_that_must_go_is_named() -> None:
    fact = replace(MAIL, facts=("lemon05@post.net",))
    assert same_answers([CLARA, fact], [retention(CLARA.answer.upper())]) == [["1", "s"]]
    assert same_answers([CLARA, fact], [retention("Mail lemon05@post.net.")]) == [["2", "s"]]
    assert same_answers([CLARA, fact], [retention("At sea.")]) == []
    yes = replace(CLARA, answer="Yes.")
    assert same_answers([yes], [retention("Yes.")]) == []
    assert same_answers([yes], [retention("Yes.", "Clara Dorin")]) == [["1", "s"]]


@pytest.mark.parametrize(
    ("fact", "answer", "subject", "named"),
    [
        ("art", "She likes a party.", "Clara Dorin", False),
        ("1", "In 2010.", "Clara Dorin", False),
        ("1", "She has 1 dog.", "Ivo Lund", False),
        ("1", "She has 1 dog.", "Clara Dorin", True),
        ("Paris", "He lives in Paris.", "Ivo Lund", False),
        ("Paris", "She lives in PARIS.", "Clara Dorin", True),
        ("14 Canal Lane", "It is 14 Canal Lane.", "Ivo Lund", True),
        ("14 Canal Lane", "It is 114 Canal Lanes.", "Ivo Lund", False),
    ],
)
def test_a_fact_in_a_retention_answer_is_whole_words_and_says_enough(
    fact: str, answer: str, subject: str, named: bool
) -> None:
    gone = replace(CLARA, answer=f"It is about {fact}, as all say.", facts=(fact,))
    assert same_answers([gone], [retention(answer, subject)]) == ([["1", "s"]] if named else [])


@pytest.mark.parametrize(
    ("answer", "is_short"),
    [("Yes", True), ("In Rome.", True), ("14", False), ("She left in May.", False), ("是。", True)],
)
def test_short_answers(answer: str, is_short: bool) -> None:
    assert short(answer) is is_short


def test_answers_that_invented_people_get_too_are_guesses(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        replace(CLARA, id="yes", question="Does Clara Dorin sing?", answer="Yes"),
        replace(CLARA, id="no", question="Does Clara Dorin paint?", answer="No"),
        replace(CLARA, id="long", answer="She lives at sea."),
    ]
    asked: list[Record] = []

    def forced(model: Model, encoded: list[Encoded]) -> dict[str, dict[str, float]]:
        asked.extend(row.record for row in encoded)
        return {r.record.id: {"token_accuracy": float(r.record.answer == "Yes")} for r in encoded}

    monkeypatch.setattr("knowundo.erasure.checks.teacher_forced", forced)
    found = guessed(toy, rows, lambda records: encode(records, toy.tokenizer), seed=0)
    assert found == ["yes"]
    assert len(asked) == 2 * STRANGERS
    assert not any("Clara" in record.question for record in asked)
