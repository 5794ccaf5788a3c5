"""Counts, lengths and duplicates of records, by hand."""

from __future__ import annotations

from dataclasses import replace

from conftest import records
from knowundo.data.description import Lengths, describe
from knowundo.data.records import Record


def some() -> list[Record]:
    unlearn = records("unlearn", "train", 3)  # answers of 1, 3 and 5 words
    again = replace(unlearn[0], id="again")
    seen = replace(unlearn[1], id="seen", split="val")
    text = Record("t", "", "a b c d", "general", "val", kind="text", subset="text")
    return [*unlearn, again, seen, *records("retention", "train", 2), text]


def test_groups() -> None:
    found = describe(some(), lambda rows: [7] * len(rows), name="mine", domain="d")
    told = {(g.scope, g.split): g for g in found.groups}
    assert [(*key, g.rows, g.subjects, g.repeated, g.trained) for key, g in told.items()] == [
        ("unlearn", "train", 4, 3, 1, 0),
        ("unlearn", "val", 1, 1, 0, 1),
        ("retention", "train", 2, 2, 0, 0),
        ("general", "val", 1, 1, 0, 0),
    ]
    first, last = told["unlearn", "train"], told["general", "val"]
    assert first.answer_words == Lengths(2.0, 2.5, 5)
    assert first.question_words == Lengths(7.0, 7.0, 7)
    assert first.tokens == Lengths(7.0, 7.0, 7)
    assert (last.kinds, last.subsets, last.question_words) == ({"text": 1}, {"text": 1}, None)
    assert found.published is None
    assert found.problem is None


def test_published_figures_and_problems() -> None:
    mine = [r for r in some() if r.scope == "unlearn"]
    found = describe(mine, lambda rows: [1] * len(rows), name="tofu", domain="forget01")
    assert found.published == {"tfidf": 0.172, "vocabulary": 0.035, "names": 0.006}
    assert found.problem == "retention/train: no rows; each of the two scopes needs train rows"
