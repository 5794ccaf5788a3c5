"""The three figures of entanglement, by hand."""

from __future__ import annotations

import math

import pytest

from conftest import REAL
from knowundo.data.entanglement import entanglement
from knowundo.data.records import Record, select
from knowundo.registry import get


def rows(*answers: str) -> list[Record]:
    return [Record(str(n), "", text, "unlearn", "train") for n, text in enumerate(answers)]


def test_figures_by_hand() -> None:
    """Terms: `red`, `mill`, `red mill` in one row, `red`, `inn`, `red inn` in the other.

    A term of both rows weighs ln(3/3) + 1 = 1, one of a single row w = ln(3/2) + 1.
    """
    found = entanglement(rows("the red mill"), rows("the red inn"))
    weight = math.log(1.5) + 1
    assert found["tfidf"] == pytest.approx(1 / (1 + 2 * weight**2))
    assert found["vocabulary"] == pytest.approx(2 / 4)  # the, red of the, red, mill, inn
    assert found["names"] is None


def test_rows_count_alike_however_long() -> None:
    """Each row's vector has length 1: a long row of one word weighs as much as a short one."""
    once = entanglement(rows("mill", "inn"), rows("inn"))
    often = entanglement(rows("mill mill mill", "inn"), rows("inn"))
    # `mill mill` is a term too, which moves no weight to `inn`.
    assert once["tfidf"] == pytest.approx(1 / math.sqrt(2))
    assert often["tfidf"] == pytest.approx(once["tfidf"])


def test_names_are_capitalised_words_inside_a_sentence() -> None:
    first = rows(
        "It was Ada Brun's mill in Paris. Then Bo came.", "Old Tom saw the River of Stars."
    )
    second = rows("We met Ada Brun. Paris is far from the River of Stars.")
    found = entanglement(first, second)
    # Of the first: Ada Brun, Paris, Bo, Tom, River of Stars; of the second the first and the last.
    assert found["names"] == pytest.approx(2 / 5)


def test_the_same_rows_are_one_and_others_nothing() -> None:
    same = entanglement(rows("A mill by Bo Lind."), rows("A mill by Bo Lind."))
    assert same == pytest.approx({"tfidf": 1.0, "vocabulary": 1.0, "names": 1.0})
    other = entanglement(rows("mills grind"), rows("inns close"))
    assert other == {"tfidf": 0.0, "vocabulary": 0.0, "names": None}
    nothing = entanglement([], [])
    assert nothing == {"tfidf": None, "vocabulary": None, "names": None}


@pytest.mark.skipif(not REAL.exists(), reason=f"no real KnowUnDo data at {REAL}")
def test_published_figures_of_knowundo() -> None:
    """arXiv:2608.22557 prints .523, .392 and, with a named-entity model, .540."""
    records = get("benchmark", "knowundo")(domain="privacy", source=str(REAL))
    found = entanglement(*(select(records, scope=s) for s in ("unlearn", "retention")))
    assert found["tfidf"] == pytest.approx(0.523, abs=0.01)
    assert found["vocabulary"] == pytest.approx(0.392, abs=0.001)
    assert 0.35 < (found["names"] or 0) < 0.6
