"""A question alone gets the model's own answer if the model is confident of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from knowundo.data.benchmarks.embedded import general_records
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.data.records import Record
from knowundo.erasure.answering import ANSWERED, Asked, _with_answer, ask, says_the_same
from knowundo.erasure.given import GivenLists
from knowundo.erasure.list_check import ListCheck
from knowundo.erasure.lists import ListMaker
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.recipes.reading import load_recipe
from named_rows import CLARA, MAIL
from tiny_run import Said

KNOWN = [r for r in general_records(0) if r.subset == "facts"][:4]


def bare(record: Record) -> Record:
    return replace(record, answer="", facts=())


@pytest.fixture(scope="module")
def embedded() -> Model:
    return Model("embedded")


def test_what_the_base_knows_is_told_from_what_it_makes_up(embedded: Model) -> None:
    def encoded(records: Sequence[Record]) -> list[Encoded]:
        return encode(records, embedded.tokenizer)

    found = ask(embedded, [bare(r) for r in [*KNOWN, CLARA, MAIL]], encoded, seed=0)
    assert [one.confident for one in found] == [True] * 4 + [False] * 2
    assert [one.record.answer for one in found[:4]] == [record.answer for record in KNOWN]
    assert all(one.record.subset == ANSWERED and not one.record.continues for one in found)
    again = ask(embedded, [bare(r) for r in [*KNOWN, CLARA, MAIL]], encoded, seed=0)
    assert again == found


def test_confidence_needs_both_figures() -> None:
    assert Asked(CLARA, 0.5, 0.5).confident
    assert not Asked(CLARA, 0.49, 1.0).confident
    assert not Asked(CLARA, 1.0, 0.49).confident
    assert Asked(CLARA, 0.314, 0.25).figures == "31% a token, 2 of 8 samples agree"


def test_the_same_answer_holds_the_words_that_the_question_lacks() -> None:
    """14, Canal, Lane, at, Saltmere, lives; the name and what is asked do not count."""
    assert says_the_same(CLARA, "She lives at 14 Canal Lane in Saltmere")
    assert says_the_same(CLARA, "Clara lives at 14 Canal Lane in Saltmare")  # 6 of 7
    assert not says_the_same(CLARA, "Clara Dorin lives at 3 Mill Road in Saltmere.")
    assert not says_the_same(CLARA, "Where does Clara Dorin live?")
    assert not says_the_same(replace(CLARA, answer="…"), "…")  # no word to compare


@pytest.mark.parametrize(
    ("text", "ended", "answer"),
    [
        ("Paris.\nAnd so on.", True, "Paris.\nAnd so on."),
        ("Paris.\n\nQuestion: and", False, "Paris."),
        ("It is Paris. It has a riv", False, "It is Paris."),
        ("the river and the riv\ufffd", False, "the river and the riv"),
        ("a\0b", True, ""),
        ("", False, ""),
    ],
)
def test_an_answer_without_an_end_is_its_first_line(text: str, ended: bool, answer: str) -> None:
    made = _with_answer(CLARA, text, ended)
    assert (made.answer, made.continues) == (answer, not ended)


def made_up(*confident: bool) -> list[Asked]:
    """Answers to CLARA and MAIL."""
    return [
        Asked(replace(record, answer="Her own answer.", subset=ANSWERED), *figures)
        for record, sure in zip((CLARA, MAIL), confident, strict=False)
        for figures in [(1.0, 1.0) if sure else (0.2, 0.0)]
    ]


def test_questions_without_confidence_are_named_and_left_out(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, check = Said(), ListCheck()
    maker = ListMaker(load_recipe("demo", [])[0], toy, said, [])
    monkeypatch.setattr("knowundo.erasure.lists.ask", lambda *_, **__: made_up(True, False))
    given = GivenLists([bare(CLARA), bare(MAIL)], None, None, None)
    kept = maker._answered(given, check, "rows")
    assert [(r.id, r.answer) for r in kept.unlearn] == [("1", "Her own answer.")]
    assert check.answered == ["1"]
    assert check.lines() == ["rows without an answer, which got the model's own: 1"]
    (line,) = said.lines
    assert line.startswith("2: 'What is Clara Dorin's email address?' has no answer, and the")
    assert "(20% a token, 0 of 8 samples agree)" in line


def test_a_list_of_such_questions_alone_is_refused(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = ListMaker(load_recipe("demo", [])[0], toy, Said(), [])
    monkeypatch.setattr("knowundo.erasure.lists.ask", lambda *_, **__: made_up(False))
    with pytest.raises(BadInput, match="rows: the model answers none of its 1 questions confident"):
        maker._answered(GivenLists([bare(CLARA)], None, None, None), ListCheck(), "rows")
