"""The rows of results.json and comparisons between models, on cases computed by hand."""

from __future__ import annotations

import pytest
from score_tables import table

from knowundo.evaluation.result_rows import Evaluation


def test_success_rows_and_target() -> None:
    memorized = table(unlearn=[("A", 1.0), ("B", 0.8)], retention=[("A", 1.0), ("B", 0.6)])
    retain = table(unlearn=[("A", 0.5), ("B", 0.3)], retention=[("A", 1.0), ("B", 1.0)])
    evaluation = Evaluation(
        {"memorized": memorized, "retain": retain}, target="retain", draws=50, seed=0
    )
    rows = {(r.variant, r.metric, r.scope): r for r in evaluation.rows()}
    assert rows["memorized", "unlearn_success", "unlearn"].value == pytest.approx(10)
    assert rows["memorized", "unlearn_success", "unlearn"].reference == pytest.approx(60)
    assert rows["memorized", "retention_success", "retention"].value == pytest.approx(80)
    average = rows["memorized", "average_success", None]
    assert (average.value, average.records, average.subjects) == (pytest.approx(45), 4, 2)
    empty = rows["memorized", "exact_match", "unlearn"]
    assert (empty.value, empty.low, empty.unscored) == (None, None, 2)


def test_comparison_is_paired() -> None:
    """One is better than the other by 10 on every subject: the interval has no width.

    Unpaired, the spread between subjects (0 to 1) would drown it.
    """
    accuracies = [("A", 0.0), ("B", 0.4), ("C", 0.9)]
    worse = [(name, value + 0.1) for name, value in accuracies]
    tables = {
        "one": table(unlearn=accuracies, retention=accuracies),
        "two": table(unlearn=worse, retention=accuracies),
    }
    found = Evaluation(tables, target=None, draws=100, seed=0).compare("one", "two")
    assert [(row.metric, row.value) for row in found] == [("average_success", pytest.approx(5))]
    assert (found[0].low, found[0].high) == (pytest.approx(5), pytest.approx(5))


def test_gap_counts_overshoot_as_distance() -> None:
    """Target 60/100. One overshoots by 20, the other falls short by 20: the same gap, (20+0)/2."""
    stay = [("A", 1.0)]
    tables = {
        "retain": table(unlearn=[("A", 0.4)], retention=stay),
        "over": table(unlearn=[("A", 0.2)], retention=stay),
        "short": table(unlearn=[("A", 0.6)], retention=stay),
    }
    evaluation = Evaluation(tables, target="retain", draws=20, seed=0)
    rows = {r.variant: r.value for r in evaluation.rows() if r.metric == "gap_to_target"}
    assert rows == {"over": pytest.approx(10), "short": pytest.approx(10)}
    metrics = {row.metric: row.value for row in evaluation.compare("over", "short")}
    assert metrics == {"average_success": pytest.approx(20), "gap_to_target": pytest.approx(0)}
