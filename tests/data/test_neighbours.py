"""Questions near a list: other names, other words, and what cannot be known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from knowundo.data.benchmarks.embedded import embedded
from knowundo.data.neighbours import (
    about_other_things,
    about_others,
    in_english,
    invented_names,
    mostly_english,
    named_subject,
    near_names,
    renamed,
    reworded,
    turned,
    unknowable,
)
from knowundo.data.records import Record
from knowundo.errors import BadInput
from named_rows import CLARA, MAIL


def test_names_are_of_nobody_on_the_list() -> None:
    names = invented_names(50, 0, {"Aisha Doyle"})
    assert len(set(names)) == 50
    assert "Aisha Doyle" not in invented_names(10_000, 0, {"Aisha Doyle"})
    assert names == invented_names(50, 0, {"Aisha Doyle"})
    near = near_names(["Clara Dorin", "Plato"], 60, 0)
    assert "Clara Dorin" not in near
    assert all(name.startswith("Clara ") or name.endswith(" Dorin") for name in near)


def test_questions_about_others_and_other_things() -> None:
    others = about_others([CLARA, MAIL], ["Ada Stone", "Ivo Lund"], 2)
    assert [r.question for r in others] == [
        "Where does Ada Stone live?",
        "Where does Ivo Lund live?",
        "What is Ada Stone's email address?",
        "What is Ivo Lund's email address?",
    ]
    assert {r.answer for r in others} == {""}
    things = about_other_things([CLARA, MAIL])
    assert all("Clara Dorin" in r.question for r in things)
    assert not {r.question for r in things} & {CLARA.question, MAIL.question}
    assert len({r.id for r in [*others, *things]}) == len(others) + len(things)


@pytest.mark.parametrize(
    ("question", "other"),
    [
        ("When was ADA BRUN born, Ada Brun?", "When was Ivo Lund born, Ivo Lund?"),
        ("who is ada brun's aunt?", "who is Ivo Lund's aunt?"),
        ("Who is Nada Bruno?", None),
        ("Who is nada bruno?", None),
    ],
)
def test_a_name_is_found_in_any_case(question: str, other: str | None) -> None:
    row = replace(CLARA, question=question, answer="ADA BRUN.", subject="Ada Brun")
    found = renamed(row, "Ivo Lund")
    assert named_subject(row) == (None if other is None else "Ada Brun")
    assert (found and (found.question, found.answer)) == (other and (other, "Ivo Lund."))


def test_a_known_question_has_other_word_orders() -> None:
    live = replace(CLARA, question="Where does Clara Dorin live?")
    assert [record.question for record in turned(live)] == [
        "At which place does Clara Dorin live?",
        "Do you know where Clara Dorin lives?",
    ]
    phone = replace(CLARA, question="What is the phone number of Clara Dorin?")
    assert [record.question for record in turned(phone)] == [
        "What is Clara Dorin's phone number?",
        "As for Clara Dorin, what is the phone number?",
    ]
    assert all(record.answer == CLARA.answer for record in turned(phone))
    assert turned(replace(CLARA, question="How old is Clara Dorin?")) == []


def test_other_words_ask_the_same() -> None:
    for record, question in (
        (CLARA, "At which place does Clara Dorin live?"),
        (MAIL, "What is the email address of Clara Dorin?"),
    ):
        assert (other := reworded(record, 0)) is not None
        assert other.question == question
    for record in embedded(domain="privacy", subjects=5):
        if record.kind == "qa":
            assert (other := reworded(record, 0)) is not None
            assert in_english(record.question)
            assert other.question != record.question
            assert other.answer == record.answer
            assert record.subject is None or record.subject in other.question


def test_a_document_is_asked_for_by_its_beginning() -> None:
    text = Record("t", "", "One two three four five six seven.", "unlearn", "train", kind="text")
    assert (half := reworded(text, 0)) is not None
    assert half.kind == "qa"
    assert f"{half.question} {half.answer}" == text.answer


def test_what_cannot_be_known() -> None:
    (about,) = unknowable([CLARA], [CLARA], 0)
    assert "Clara" not in about.question + about.answer
    assert about.answer.endswith("lives at 14 Canal Lane in Saltmere.")
    nameless = [
        Record("a", "Who?", "He.", "unlearn", "train"),
        Record("b", "Whom?", "Him.", "unlearn", "train"),
    ]
    assert [r.answer for r in unknowable(nameless, nameless, 0)] == ["Him.", "He."]
    with pytest.raises(BadInput, match="give a token accuracy"):
        unknowable(nameless[:1], nameless[:1], 0)


CHINESE = Record("c", "安布朗住在哪里？", "安布朗住在桦树街十四号。", "unlearn", "train", "安布朗")


@pytest.mark.parametrize(
    ("question", "english"),
    [
        (CLARA.question, True),
        ("Tell me about Ada.", True),
        ("安布朗住在哪里？", False),
        ("Где живёт Ада?", False),
        ("Wo wohnt Ada?", False),
        ("Où habite Ada ?", False),
        ("Qual é o endereço do João Silva?", False),
        ("Wat is het adres van Jan Jansen?", False),
        ("Hvad laver Jens Hansen for at leve?", False),
        ("Was Clara born in Rome?", True),
        ("Is Clara in Rome?", True),
    ],
)
def test_english_is_told_by_its_little_words(question: str, english: bool) -> None:
    assert in_english(question) is english


def test_a_list_has_one_language() -> None:
    dutch = [replace(CLARA, question=f"Wat is het adres van {n}?", subject=n) for n in "ABC"]
    odd = replace(CLARA, question="Is Clara Dorin in Rome?")
    assert not mostly_english([*dutch, odd])
    assert about_other_things([*dutch, odd]) == []
    terse = replace(CLARA, question="Is Clara Dorin tall?")
    assert mostly_english([CLARA, MAIL, terse])
    framed, worded = (reworded(terse, 0, english=english) for english in (False, True))
    assert framed is not None
    assert worded is not None
    assert framed.question.replace(terse.question, "").strip(' "“”-1.()') == ""
    assert any(word in worded.question.lower() for word in ("please", "tell", "question", "know"))


def test_other_languages_are_asked_without_english_words() -> None:
    other = reworded(CHINESE, 0)
    assert other is not None
    assert other.question != CHINESE.question
    assert other.question.replace(CHINESE.question, "").strip(' "“”-1.()') == ""
    assert other.answer == CHINESE.answer
    assert about_other_things([CHINESE]) == []


@pytest.mark.parametrize("text", ["a", "安", "ab      ", "  ab"])
def test_a_document_too_short_for_halves_is_not_asked_for(text: str) -> None:
    other = reworded(Record("t", "", text, "unlearn", "train", kind="text"), 0)
    assert other is None
    long = Record("t", "", f"{text} {text} cd", "unlearn", "train", kind="text")
    assert reworded(long, 0) is not None
