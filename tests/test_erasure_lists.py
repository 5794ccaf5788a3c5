"""What is near a list: other names, other words, what cannot be known, and what may not be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from knowundo.data.benchmarks.embedded import embedded
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode, fitting
from knowundo.data.lists.reading import read_list, write_list
from knowundo.data.neighbours import (
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


CHINESE = Record("c", "安布朗住在哪里？", "安布朗住在桦树街十四号。", "unlearn", "train", "安布朗")


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
