"""The report of an erasure leads with the verdict, and is safe to open."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from erasure_facts import HOSTILE, SECRET, change, erasure_results, results_with, score_tables
from knowundo.erasure_results import EarlierRequest, ErasureResults
from knowundo.reporting.erasure import kept_lines, summary, write_erasure_report
from knowundo.reporting.page import REDACTED

# Elements that HTML does not close.
VOID = {"meta", "br", "img", "link"}


class Page(HTMLParser):
    """Elements, attributes and visible text of a page, whose tags must be balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script") and data.strip():
            self.words.append(data.strip())


def page(tmp_path: Path, facts: ErasureResults | None = None, *, redact: bool = False) -> str:
    before, after = score_tables()
    file = tmp_path / "report.html"
    scores = {"memorized": before, "erased": after}
    write_erasure_report(file, results_with(facts or erasure_results()), scores, redact=redact)
    return file.read_text("utf-8")


def test_the_verdict_comes_first_and_then_each_question(tmp_path: Path) -> None:
    words = Page(page(tmp_path)).words
    # After the title: the verdict, and before the tables what it rests on.
    assert words[1:3] == ["Erasure request", "NOT ERASED: 33.3 % is still answered"]
    assert words[words.index("The list") + 1] == "100.0 → 33.3 %"
    places = [
        words.index(heading)
        for heading in (
            "What had to go", "What had to stay", "General text", "Cost", "How to reproduce",
        )
    ]  # fmt: skip
    assert places == sorted(places)
    line = words.index("the list's questions answered exactly")
    assert words[line + 1 : line + 4] == ["100.0", "33.3", "3"]
    assert "knowundo erase --model m --unlearn 'my rows.jsonl' --out out" in words


def test_rows_that_are_still_answered_come_first(tmp_path: Path) -> None:
    words = Page(page(tmp_path)).words
    first = words.index("still answered:")
    assert words[first + 1] == "Answer u1."
    assert words.index(SECRET) > first  # of the rows that are not answered any more
    assert words.index("What of u2?") < words.index("What of u0?")  # 75 % before 50 %
    assert "(a document)" in words


def test_answers_are_escaped_and_nothing_is_loaded(tmp_path: Path) -> None:
    text = page(tmp_path)
    read = Page(text)
    assert HOSTILE in read.words
    assert not {"img", "iframe", "link", "object"} & set(read.tags)
    assert read.tags.count("script") == 1  # ours, by its hash
    names = {name for name, _ in read.attributes}
    assert not names & {"src", "href", "srcset", "action", "data", "onload", "onclick"}
    assert not re.search(r"\burl\(|@import", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src &#39;none&#39;; script-src &#39;sha256-" in policy[1]
    assert "unsafe" not in policy[1]


def test_narrow_screens_dark_screens_and_paper_have_their_styles(tmp_path: Path) -> None:
    text = page(tmp_path)
    for words in ("max-width: 640px", "prefers-color-scheme: dark", "@media print"):
        assert words in text
    labels = {value for name, value in Page(text).attributes if name == "data-label"}
    assert labels == {"question", "true answer", "before", "after", "tokens predicted"}


def test_a_redacted_page_holds_no_answer(tmp_path: Path) -> None:
    plain, hidden = page(tmp_path), page(tmp_path, redact=True)
    assert SECRET in plain
    assert "Keep it as you keep the data" in plain
    assert REDACTED in hidden
    assert REDACTED not in plain
    before, after = score_tables()
    texts = {*before["answer"], *before["said"].dropna(), *after["said"].dropna()} - {HOSTILE}
    assert len(texts) > 10
    assert not [text for text in texts if text in hidden]
    assert "NOT ERASED: 33.3 %" in hidden
    assert hidden.count("sha256:") >= 8


def test_long_lists_are_cut_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("knowundo.reporting.erasure.MOST_LISTED", 2)
    assert "3 more rows are not shown" in page(tmp_path)


def test_a_summary_has_the_same_figures_in_few_lines() -> None:
    earlier = EarlierRequest(number=1, exact=change(0.0, 50.0, 4), relapsed=True)
    facts = erasure_results(earlier=[earlier])
    assert summary(facts) == [
        "what had to go (4 rows, 2 subjects): 100.0 → 33.3 % answered exactly, 0.0 → 0.0 % in "
        "other words, 100.0 → 62.5 % of the tokens predicted",
        "what had to stay, listed: 100.0 → 50.0 % answered exactly (2 rows)",
        "what had to stay, unlisted: 100.0 → 50.0 % answered exactly (2 rows)",
        "general text: perplexity 2.7 → 7.4 (1 texts)",
        "cost: 4 s (unlearn 3, evaluate 2), 20 optimizer steps, trainings: 2",
    ]


def test_a_relapse_is_named_and_measures_without_rows_are_not(tmp_path: Path) -> None:
    earlier = EarlierRequest(number=1, exact=change(0.0, 50.0, 4), relapsed=True)
    facts = erasure_results(earlier=[earlier])
    assert "request 1, answered exactly (RELAPSED)" in Page(page(tmp_path, facts)).words
    assert [words for words, _ in kept_lines(facts)] == [
        "listed: the rows that were given",
        "listed, in other words",
        "unlisted: rows that were generated",
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lost": 2.25, "bound": 10.0}, ": 2.2 points were lost, and 10 may be lost."),
        ({"lost": -1.0, "bound": None}, ": 0.0 points were lost."),
        (
            {"lost": 2.25, "lost_in": "answers", "bound": 10.0},
            "Exact answers that must stay, in the known wording: 2.2 % were lost, and 10 may be "
            "lost.",
        ),
        ({"lost": None, "bound": 10.0}, "so no loss was measured."),
    ],
)
def test_the_loss_stands_beside_its_bound(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    text = page(tmp_path, erasure_results(**given))
    assert any(words.endswith(said) for words in Page(text).words)
