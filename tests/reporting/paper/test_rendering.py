"""The paper's table as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest

from knowundo.reporting.paper import rendering
from knowundo.reporting.paper.rendering import paper_table
from paper_results import HOSTILE, results, row, task


def test_published_figures_stand_in_their_columns() -> None:
    table = list(csv.DictReader(io.StringIO(paper_table(results(), {}, format="csv"))))
    line = next(r for r in table if (r["variant"], r["source"]) == ("memflex", "paper"))
    assert line == {
        "variant": "memflex", "source": "paper",
        "unlearn_success": "82.95", "unlearn_perplexity": ">1e10",
        "unlearn_forced_rouge_l": "7.75", "unlearn_rouge_l": "",
        "retention_success": "81.80", "retention_perplexity": "72.50",
        "retention_forced_rouge_l": "64.33", "retention_rouge_l": "",
        "average_success": "82.37", "mmlu": "44.35", "arc_challenge": "67.76",
        "truthfulqa_mc1": "26.44", "social_iqa": "32.86", "race": "42.58",
        "general_mean": "42.79", "seconds_per_step": "3.00",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (">1e10", ">1e10"),
        (0.0, "0.00"),
        (82.374, "82.37"),
        (100.0, "100.00"),
        (999.996, "1000"),
        (7843.2, "7843"),
        (9999.7, "1e4"),
        (1.6e6, "2e6"),
        (2e10, ">1e10"),
        (float("inf"), ">1e10"),
    ],
)
def test_numbers(value: float | str | None, text: str) -> None:
    assert rendering._text(value, "–") == text


def test_csv_is_read_back() -> None:
    found = results(row(HOSTILE, "unlearn_success", "unlearn", 12.344))
    table = list(csv.reader(io.StringIO(paper_table(found, {}, format="csv"))))
    assert {len(line) for line in table} == {len(table[0])}
    assert table[-1][:3] == [HOSTILE, "ours", "12.34"]
    assert set(table[-1][3:]) == {""}


def test_markdown_has_equal_columns_and_no_live_markup() -> None:
    text = paper_table(results(), {})
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 6
    assert len({line.count("|") for line in lines}) == 1
    assert "<script>" not in text
    assert r"| a_b&amp;%\$#{}&#124;&lt;script>\[x\]\*\\^\~ \_y\_ | ours | – |" in text
    assert "seed 7, data 0123456789ab" in text


def test_latex_is_balanced_and_escaped() -> None:
    text = paper_table(results(name="a_b"), {}, format="latex")
    escaped = re.sub(r"\\[_&%$#{}]", "", text)
    assert escaped.count("{") == escaped.count("}")
    body = escaped.split("\n", 1)[1]  # the first line is a comment
    assert not re.search(r"[_%#<>|~^]", body)
    assert body.count("$") % 2 == 0
    assert (
        r"a\_b\&\%\$\#\{\}\textbar{}\textless{}script\textgreater{}{[}x]{*}\textbackslash{}"
        r"\textasciicircum{}\textasciitilde{} \_y\_ & ours & -- &"
    ) in text
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    width = len(re.search(r"\{(llr+)\}", text)[1])  # type: ignore[index]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {width - 1}
    assert "seed 7, data 0123456789ab" in text


@pytest.mark.parametrize("form", ["markdown", "latex", "csv"])
def test_a_task_of_any_name_is_escaped(form: Any) -> None:
    text = paper_table(results(task("memflex", HOSTILE, 1.0), tasks=[HOSTILE]), {}, format=form)
    if form == "csv":
        assert HOSTILE in next(csv.reader(io.StringIO(text)))
    else:
        assert "<script>" not in text
