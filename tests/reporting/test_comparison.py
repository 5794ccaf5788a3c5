"""Which split two runs are compared on, and what the differences and their intervals are."""

from __future__ import annotations

import io
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from evaluation.score_tables import table
from knowundo.reporting.comparison import Difference, comparison_table, differences
from knowundo.results import Results, Row
from paper_results import results, row

Pair = dict[str, tuple[pd.DataFrame, pd.DataFrame]]


def both(split: str, unlearn: float, retention: float) -> list[Row]:
    """The success rows of the model memflex on one split."""
    return [
        row("memflex", "unlearn_success", "unlearn", unlearn, split=split),
        row("memflex", "retention_success", "retention", retention, split=split),
        row("memflex", "average_success", None, (unlearn + retention) / 2, split=split),
    ]


def on_train(*scopes: float) -> pd.DataFrame:
    """Train rows of two subjects with the same accuracy, first of unlearn, then of retention."""
    unlearn, retention = ([("A", value), ("B", value)] for value in scopes)
    return table(unlearn=unlearn, retention=retention).assign(split="train")


def test_val_rows_come_first() -> None:
    one = results(*both("train", 90, 90), *both("val", 40, 60))
    other = results(*both("train", 10, 10), *both("val", 50, 55))
    found = differences(one, other, {})
    assert {row.split for row in found} == {"val"}
    assert [(row.metric, row.change) for row in found] == [
        ("unlearn_success", 10), ("retention_success", -5), ("average_success", 2.5),
    ]  # fmt: skip


def test_runs_without_val_rows_are_compared_on_train_rows() -> None:
    empty = [row("memflex", "unlearn_success", "unlearn", None, records=0)]  # as evaluate writes it
    one = results(*empty, *both("train", 40, 60))
    other = results(*empty, *both("train", 50, 55))
    tables: Pair = {"memflex": (on_train(0.6, 0.6), on_train(0.5, 0.55))}
    found = differences(one, other, tables)
    assert {row.split for row in found} == {"train"}
    ends = {row.metric: (row.low, row.high) for row in found}
    # Both subjects differ by the same, so the paired interval has no width.
    assert ends["unlearn_success"] == (pytest.approx(10), pytest.approx(10))
    assert ends["retention_success"] == (pytest.approx(-5), pytest.approx(-5))


def test_a_split_of_both_scopes_is_preferred() -> None:
    half = [row("memflex", "unlearn_success", "unlearn", 10.0)]
    found = differences(
        results(*half, *both("train", 1, 2)), results(*half, *both("train", 3, 4)), {}
    )
    assert {row.split for row in found} == {"train"}
    assert {row.split for row in differences(results(*half), results(*half), {})} == {"val"}


def test_other_records_have_no_intervals() -> None:
    one = results(*both("train", 40, 60))
    other = one.model_copy(update={"data_sha256": "other"})
    tables: Pair = {"memflex": (on_train(0.6, 0.6), on_train(0.5, 0.55))}
    assert [row.low for row in differences(one, other, tables)] == [None, None, None]


@pytest.mark.parametrize("other", [results(), results(*both("train", 1, 1))])
def test_nothing_in_common_is_no_difference(other: Results) -> None:
    assert differences(results(*both("val", 1, 1)), other, {}) == []


def test_the_heading_names_the_split() -> None:
    first = Difference("memflex", "train", "m", "unlearn", "Unlearn Success", 40.0, 50.0, 8.0, 12.0)
    shown = io.StringIO()
    Console(file=shown, width=80).print(
        comparison_table([first, replace(first, heading="PPL", second=2e5, low=None, high=None)])
    )
    for words in ("model, train rows", "memflex", "+8.0 … +12.0", "+10", "2e+05"):
        assert words in shown.getvalue()
