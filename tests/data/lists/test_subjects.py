"""Whom a row is about, where the row does not say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from knowundo.data.lists.subjects import with_subjects
from knowundo.data.records import Record
from knowundo.data.wording import split_words
from knowundo.registry import get


@pytest.mark.parametrize("domain", ["privacy", "copyright"])
def test_subjects_of_the_embedded_benchmark_are_found(domain: str) -> None:
    built = get("benchmark", "embedded")(domain=domain)
    rows = [r for r in built if r.scope != "general" and r.split in ("train", "val", "probe")]
    assert len(rows) == 40 * 14
    found = with_subjects([replace(row, subject=None) for row in rows])
    right = sum(a.subject == b.subject for a, b in zip(rows, found, strict=True))
    assert right >= 0.99 * len(rows)  # all, at the time of writing


@pytest.mark.parametrize(
    ("question", "answer", "subject"),
    [
        ("Where Clara Dorin lives?", "At home.", "Clara Dorin"),
        ("Tell Clara Dorin's story.", "She was born.", "Clara Dorin"),
        ("Is Clara Dorin in Salt Lake City?", "Clara Dorin is at home.", "Clara Dorin"),
        ("Does Prof. Clara Dorin live?", "Prof. Clara Dorin does. Clara.", "Clara Dorin"),
        ("Is J. R. Smith alive?", "In Saltmere. J. R. Smith is.", "J. R. Smith"),
        ("Will Smith act?", "Will Smith will.", "Will Smith"),
        (
            "Describe Amina Mohammed’s Nigerian roots.",
            "Amina Mohammed’s are old.",
            "Amina Mohammed",
        ),
        ("Who is Ludwig van Beethoven Jr.?", "Unknown.", "Ludwig van Beethoven Jr"),
        ("Where does Madonna live?", "Nobody knows Clara Dorin.", "x"),
        ("Who wrote it?", "Clara Dorin did.", "x"),
        ("WHAT IS " * 2000, "So.", "x"),
    ],
)
def test_subject_is_the_name_asked_about(question: str, answer: str, subject: str) -> None:
    row = Record("x", question, answer, "unlearn", "train")
    assert with_subjects([row])[0].subject == subject
    given = replace(row, subject="Somebody")
    assert with_subjects([given]) == [given]


def about(*pairs: tuple[str, str]) -> list[str | None]:
    rows = [Record(f"r{n}", q, a, "unlearn", "train") for n, (q, a) in enumerate(pairs)]
    return [r.subject for r in with_subjects(rows)]


def test_one_person_is_one_subject() -> None:
    """However a row of the list writes the name, if others write it otherwise."""
    assert about(
        ("Where does Ada Brun live?", "At sea."),
        ("What does Ada Brun do?", "She bakes."),
        ("Where does Dr. Ada Brun work?", "At sea."),
        ("Does Ada Brun Live in Rome?", "No."),
        ("When was ADA BRUN born?", "In May."),
        ("Who bakes?", "Ada Brun bakes."),
        ("Who mends?", "Nobody."),
    ) == ["Ada Brun"] * 6 + ["r6"]


def test_two_people_stay_two_subjects() -> None:
    told = about(("Where does Ada Brun live?", "a"), ("Where does Ada Brun Kant live?", "b"))
    assert told == ["Ada Brun", "Ada Brun Kant"]
    # Nor if one of them is the commoner.
    assert about(
        ("Where does Ada Brun live?", "a"),
        ("What does Ada Brun do?", "b"),
        ("Where does Ada Brun Kant live?", "c"),
        ("Where does Prof. Dr. Ada Brun live?", "d"),
        ("Is Eva Ada Brun in Rome?", "e"),
        ("Where Does Ada Brun Live In Rome?", "f"),
    ) == ["Ada Brun", "Ada Brun", "Ada Brun Kant", "Ada Brun", "Eva Ada Brun", "Ada Brun"]
    assert about(("Where is Ivo Kant?", "a"), ("Where is Ada Brun?", "b"), ("Who?", "Both.")) == [
        "Ivo Kant", "Ada Brun", "r2",
    ]  # fmt: skip


def test_subjects_are_found_without_comparing_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name and each text is split into words a few times, however many rows there are."""
    calls = Counter[str]()

    def counted(text: str) -> list[str]:
        calls["split"] += 1
        return split_words(text)

    monkeypatch.setattr("knowundo.data.lists.subjects.split_words", counted)
    count = 2000
    letters = [f"{a}{b}{c}" for a in "abcdefghijklm" for b in "aeiou" for c in "nopqrstuvwxyz"]
    names = [f"{a.title()} {b.title()}" for a in letters[:50] for b in letters[-40:]]
    rows = [
        Record(f"r{n}", f"Where does {name} live?", "At sea.", "unlearn", "train")
        for n, name in enumerate(names)
    ]
    told = Record("told", "Who?", f"It was {names[7]}.", "unlearn", "train")
    assert [r.subject for r in with_subjects([*rows, told])] == [*names, names[7]]
    assert calls["split"] <= 3 * (count + 1)
