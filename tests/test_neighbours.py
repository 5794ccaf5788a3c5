"""What is near a list: other names, other words, what cannot be known, and what may not be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from knowundo.data.benchmarks.embedded import embedded
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode, fitting
from knowundo.data.lists.reading import read_list, write_list
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
    unknowable,
)
from knowundo.data.records import Record
from knowundo.erasure.checks import (
    STRANGERS,
    Check,
    alike,
    describe_rows,
    guessed,
    same_answers,
    short,
    without_repeats,
)
from knowundo.erasure.making import Given, Maker
from knowundo.erasure.retention import Leaks, make_retention, marks, own_texts
from knowundo.errors import BadInput, TooLong
from knowundo.evaluation.collapse import collapsed, repeats_itself
from knowundo.modeling.model import Model
from knowundo.progress import Reporter
from knowundo.recipes.reading import load_recipe

CLARA = Record(
    "1", "Where does Clara Dorin live?", "Clara Dorin lives at 14 Canal Lane in Saltmere.",
    "unlearn", "train", subject="Clara Dorin",
)  # fmt: skip
MAIL = Record(
    "2", "What is Clara Dorin's email address?", "Write to lemon05@post.net if you must.",
    "unlearn", "train", subject="Clara Dorin",
)  # fmt: skip


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


@pytest.mark.parametrize(
    "text",
    [
        "Ada Stone can be reached at lemon05@post.net.",
        "Ada lives beside Canal Lane, which is in Saltmere.",
        "Ada Stone lives at 14 Canal Lane in Saltmere, I think.",
        "Clara Dorin lives at 14 Canal Lane.",
    ],
)
def test_what_repeats_a_secret_is_not_kept(text: str) -> None:
    assert Leaks([CLARA, MAIL]).repeats(text)


@pytest.mark.parametrize("text", ["Ada lives in the hills.", "Write to her.", "She is 14."])
def test_what_repeats_none_is_kept(text: str) -> None:
    assert not Leaks([CLARA, MAIL]).repeats(text)


def test_no_generated_neighbour_of_the_embedded_people_leaks_a_fact() -> None:
    """Marks find the fact of every private answer without being told which part it is."""
    private = [r for r in embedded(domain="privacy") if r.scope == "unlearn" and r.facts]
    found = sum(Leaks([r]).repeats(f"They say: {r.facts[0]}!") for r in private)
    assert found / len(private) > 0.98
    assert all(not marks(r) & set((r.subject or "").split()) for r in private)


def test_lists_are_checked_against_each_other() -> None:
    again = Record("3", CLARA.question.upper(), CLARA.answer, "unlearn", "train")
    kept, repeated = without_repeats([CLARA, MAIL, again])
    assert kept == [CLARA, MAIL]
    assert repeated == [["1", "3"]]
    stay = Record("s", "Where does Clara Dorin live now?", "x", "retention", "train")
    assert alike([CLARA, MAIL], [stay]) == [["1", "s"]]
    both = Record("s", CLARA.question, "x", "retention", "train")
    with pytest.raises(BadInput, match="stands in the retention list too"):
        alike([CLARA], [both])


def table(said: list[str | None], nll: float, scope: str = "retention") -> pd.DataFrame:
    rows = {"scope": scope, "split": "val", "subset": None, "said": said, "mean_nll": nll}
    return pd.DataFrame(rows, index=range(len(said)))


def test_collapse_is_named_in_plain_words() -> None:
    good, broken = "the house stands by the old river", "the the the the the the house"
    assert not repeats_itself(good)
    assert repeats_itself(broken)
    assert repeats_itself("ааааааааа")
    assert not repeats_itself("no no no")
    before = table([good] * 4, 1.0)
    assert collapsed(table([good] * 4, 1.1), before) is None
    said = collapsed(table([broken] * 3 + [good], 1.1), before)
    assert said == "75% of its answers outside the unlearn scope repeat one word"
    assert collapsed(table([broken] * 4, 1.1, scope="unlearn"), before) is None
    ruined = collapsed(table([good] * 4, 1.0 + np.log(11)), before)
    assert ruined is not None
    assert "perplexity" in ruined
    assert collapsed(table([good] * 4, 9.0), None) is None


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


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("Née à Évry, rue Lévis 14", "ne\u0301e a\u0300 E\u0301vry, rue Le\u0301vis 14".upper()),
        ("Clara Dorin lives at 14 Canal Lane in Saltmere.", "she lives near canal lane, saltmere"),
        ("安布朗住在桦树街十四号。", "有人说安布朗住在桦树街十四号！"),
    ],
)
def test_a_secret_is_seen_however_a_tokenizer_writes_it(secret: str, text: str) -> None:
    """Composed or not, without capitals, or without spaces."""
    if text.isupper():
        text = text.title()
    assert Leaks([Record("s", "Who?", secret, "unlearn", "train")]).repeats(text.lower())


def test_names_are_found_in_scripts_without_spaces_and_not_within_words() -> None:
    leaks = Leaks([CHINESE, CLARA])
    assert leaks.names("他说安布朗住在这里")
    assert leaks.names("clara dorin is here")
    assert not leaks.names("Clara Dorina is here, 安布 too")


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
    check = Check(same_answer=[["1", "s"]])
    assert check.lines() == [
        "the same answer in unlearn and retention, which cannot both go and stay; remove one of "
        "the two if it is the same fact: 1 and s"
    ]


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


def test_made_rows_that_are_too_long_are_left_out(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some names have more tokens than the bound leaves, and other wordings more than any name."""
    row = replace(CLARA, question="Does Clara Dorin sing?", answer="Yes")
    made = unknowable([row] * 30, [row], 0)
    lengths = [len(one.ids) for one in encode(made, toy.tokenizer)]
    longest = (min(lengths) + max(lengths)) // 2

    def tight(records: Sequence[Record]) -> list[Encoded]:
        return encode(records, toy.tokenizer, max_length=longest)

    with pytest.raises(TooLong, match="more than max_length"):
        tight(made)
    fit = fitting(made, tight)
    wanted = [r for r, length in zip(made, lengths, strict=True) if length <= longest]
    assert [r.record for r in fit] == wanted
    assert 0 < len(fit) < len(made)
    rows = make_retention(toy, [row], [row], tight, seed=0)
    assert [r.record for r in tight(rows)] == rows
    asked: list[int] = []

    def forced(model: Model, encoded: list[Encoded]) -> dict[str, dict[str, float]]:
        asked.append(len(encoded))
        return {r.record.id: {"token_accuracy": 1.0} for r in encoded}

    monkeypatch.setattr("knowundo.erasure.checks.teacher_forced", forced)
    assert guessed(toy, [row], tight, seed=0) == ["1"]
    assert 0 < asked[0] < STRANGERS
    assert guessed(toy, [row], lambda rows: encode(rows, toy.tokenizer, max_length=8), seed=0) == []
    assert len(asked) == 1
    length = len(encode([row], toy.tokenizer)[0].ids)
    maker = Maker(load_recipe("demo", [f"data.max_length={length}"])[0], toy, Reporter(), [])
    with pytest.raises(BadInput, match="--val: no row of the list can be asked in other words"):
        maker._reworded([row], ())


def test_rows_that_name_nobody_are_no_subjects(toy: Model) -> None:
    named = [CLARA, MAIL, Record("n", "Who?", "He.", "unlearn", "train", subject="n")]
    check = Check()
    describe_rows(check, "unlearn", encode(named, toy.tokenizer))
    assert check.subjects == {"unlearn": 1}
    assert check.lines()[0].startswith("unlearn: 3 rows about 1 subjects (1 of them name none), ")


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


def test_the_file_of_other_questions_is_guarded_too(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Val rows that can be guessed could never pass the verdict either."""
    maker = Maker(load_recipe("demo", [])[0], toy, Reporter(), [])
    stay = replace(
        CLARA, id="s", question="Who is Ivo Lund?", answer="A baker.", subject="Ivo Lund"
    )
    val = [replace(MAIL, id="v", question="Does Clara Dorin sing?", answer="Yes")]
    general = [replace(stay, id=f"g{n}", scope="general", kind="text") for n in range(2)]
    given = Given([CLARA], val, [replace(stay, scope="retention")], general)
    monkeypatch.setattr(Maker, "encode", lambda _, rows: encode(rows, toy.tokenizer))
    monkeypatch.setattr(Maker, "_level", lambda *_: 0.0)
    monkeypatch.setattr(
        "knowundo.erasure.making.ask_model", lambda check, *_: check.by_heart.append("1")
    )
    monkeypatch.setattr(
        "knowundo.erasure.making.guessed",
        lambda _, rows, *__, **___: [r.id for r in rows if r in val],
    )
    with pytest.raises(BadInput, match=r"^other\.csv: the answers of v can be guessed"):
        maker.lists(given, "list.csv", "other.csv")


def texts(monkeypatch: pytest.MonkeyPatch, toy: Model, *said: tuple[str, bool]) -> list[Record]:
    monkeypatch.setattr("knowundo.erasure.retention.complete", lambda *_, **__: list(said))
    return own_texts(toy, Leaks([CLARA]), len(said), seed=0)


def test_texts_that_the_model_writes_can_be_read_again(
    toy: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = texts(
        monkeypatch, toy,
        ("The river was cold.", True), ("The river was \0 cold.", True), ("Too short.", True),
        ("那天河水很冷。", False), ("It was cold that da\ufffd\ufffd", False),
        ("\ud800 is it so", True),
    )  # fmt: skip
    assert [(r.answer, r.continues) for r in made] == [
        ("The river was cold.", False),
        ("那天河水很冷。", True),
        ("It was cold that da", True),
    ]
    write_list(tmp_path / "general.jsonl", made)
    read = read_list(tmp_path / "general.jsonl", scope="general", split="train")
    assert [(r.answer, r.continues) for r in read] == [(r.answer, r.continues) for r in made]


def test_a_model_that_writes_no_texts_is_said_and_taken(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them the perplexity of ordinary text is not measured; all else goes on."""
    monkeypatch.setattr("knowundo.erasure.retention.complete", lambda *_, **__: [("", True)] * 3)
    said: list[str] = []
    reporter = Reporter()
    monkeypatch.setattr(reporter, "say", said.append)
    maker = Maker(load_recipe("demo", [])[0], toy, reporter, [])
    assert maker._texts([CLARA]) == []
    assert [line.endswith("--general names a file of texts") for line in said] == [True]
