"""What is near a list: other names, other words, what cannot be known, and what may not be kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from knowundo.benchmarks.embedded import embedded
from knowundo.erasure.checks import alike, without_repeats
from knowundo.erasure.retention import Leaks, marks
from knowundo.errors import BadInput
from knowundo.evaluation.collapse import collapsed, repeats_itself
from knowundo.neighbours import (
    about_other_things,
    about_others,
    invented_names,
    near_names,
    reworded,
    unknowable,
)
from knowundo.records import Record

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


def test_other_words_ask_the_same() -> None:
    assert reworded(CLARA, 0).question == "At which place does Clara Dorin live?"
    assert reworded(MAIL, 0).question == "What is the email address of Clara Dorin?"
    for record in embedded(domain="privacy", subjects=5):
        if record.kind == "qa":
            other = reworded(record, 0)
            assert other.question != record.question
            assert other.answer == record.answer
            assert record.subject is None or record.subject in other.question


def test_a_document_is_asked_for_by_its_beginning() -> None:
    text = Record("t", "", "One two three four five six seven.", "unlearn", "train", kind="text")
    half = reworded(text, 0)
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
