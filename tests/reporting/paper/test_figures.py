"""What the KnowUnDo paper published, and which of its settings a run repeats."""

from __future__ import annotations

import pytest

from knowundo.errors import BadInput
from knowundo.recipes.presets import presets
from knowundo.reporting.paper import figures as paper
from knowundo.reporting.paper.figures import (
    best_gain,
    mean_gain,
    published,
    published_columns,
)
from knowundo.reporting.paper.rendering import paper_table
from paper_results import results

# Where a published mean is not that of the figures beside it.
SLIPS = {
    ("copyright/qwen1.5-7b", "memorized", "average_success"),
    ("privacy/llama2-7b", "ascent_plus_descent_general", "general_mean"),
}


TASKS = ("mmlu", "arc_challenge", "truthfulqa_mc1", "social_iqa", "race")


MEANS = {"average_success": ("unlearn_success", "retention_success"), "general_mean": TASKS}


def test_headline_arithmetic_of_the_paper() -> None:
    gains = {column: round(best_gain(column), 2) for column in published_columns()}
    assert gains == {
        "privacy/llama2-7b": 4.17,
        "copyright/llama2-7b": 8.34,
        "privacy/qwen1.5-7b": 7.30,
        "copyright/qwen1.5-7b": 12.08,
    }
    assert round(mean_gain(), 2) == 7.97


def test_headline_time_of_the_paper() -> None:
    rows = published("privacy", "llama2-7b")
    seconds = {name: r["seconds_per_step"] for name, r in rows.items() if "seconds_per_step" in r}
    mine = float(seconds.pop("memflex") or 0)
    fastest = min(float(value or 0) for value in seconds.values())
    assert round(100 * (1 - mine / fastest), 2) == 11.76


@pytest.mark.parametrize("column", published_columns())
def test_published_rows_agree_with_themselves(column: str) -> None:
    rows = published(*column.split("/"))
    assert set(rows) == {*presets("methods"), "memorized"} & set(rows)
    assert len(rows) == 9
    for name, figures in rows.items():
        for key, value in figures.items():
            assert value == ">1e10" or isinstance(value, int | float), (name, key)
            if not key.endswith(("perplexity", "per_step", "gib")):
                assert 0 <= float(value) <= 100, (name, key)
        for key, parts in MEANS.items():
            if set(parts) <= set(figures) and (column, name, key) not in SLIPS:
                mean = sum(float(figures[part] or 0) for part in parts) / len(parts)
                assert figures[key] == pytest.approx(mean, abs=0.0101), (name, key)


def test_average_is_made_of_both_where_none_is_published() -> None:
    both = {"unlearn_success": 90.0, "retention_success": 60.0}
    assert paper._average(both | {"average_success": None}) == 75.0
    assert paper._average(both | {"average_success": 74.0}) == 74.0


def test_unknown_setting_is_bad_input() -> None:
    with pytest.raises(BadInput, match="privacy/llama2-7b"):
        published("privacy", "llama2-7")
    with pytest.raises(BadInput, match="did you mean 'latex'"):
        paper_table(results(), {}, format="latx")  # type: ignore[arg-type]
