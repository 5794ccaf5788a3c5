"""The page of a comparison says which models differ by more than chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.evaluation.result_rows import AVERAGE
from knowundo.reporting.comparison import Difference
from knowundo.reporting.comparison_page import Compared, changed, sentence, write_comparison

HOSTILE = "<script>alert(1)</script>"


def difference(variant: str, change: float, width: float, p: float | None = 0.01) -> Difference:
    low, high = change - width, change + width
    return Difference(variant, "val", AVERAGE, None, "Average", 50.0, 50.0 + change, low, high, p)


@pytest.mark.parametrize(
    ("change", "width", "p", "real"),
    [(4, 1, 0.01, True), (-4, 1, None, True), (4, 5, 0.01, False), (4, 1, 0.2, False)],
)
def test_a_change_needs_interval_and_test(
    change: float, width: float, p: float | None, real: bool
) -> None:
    assert changed(difference("m", change, width, p)) is real


def test_the_sentence_counts_what_is_better_and_worse() -> None:
    found = [difference("up", 4, 1), difference("down", -4, 1), difference("same", 1, 2)]
    assert sentence("a", Compared("b", [], found)) == (
        "b against a: better: up; worse: down; no clear difference: 1."
    )
    assert "No model of b differs" in sentence("a", Compared("b", [], found[2:]))
    assert "share no model" in sentence("a", Compared("b", [], []))
    untested = Difference("m", "val", AVERAGE, None, "Average", 50.0, 60.0)
    assert "no difference was tested" in sentence("a", Compared("b", [], [untested]))


def test_several_runs_on_one_page(tmp_path: Path) -> None:
    one = Compared(HOSTILE, [("seed", 0, HOSTILE)], [difference(HOSTILE, 4, 1)])
    write_comparison(tmp_path / "c.html", "first", [one, Compared("third", [], [])])
    page = (tmp_path / "c.html").read_text("utf-8")
    assert "<script>alert" not in page
    assert page.count("<h1") == 1
    assert page.index("against first: better") < page.index("third and first share no model")
    assert page.count('class="best"') == 1
    assert "+4" in page
