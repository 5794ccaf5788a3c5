"""Means over planted models, and intervals over plantings."""

from __future__ import annotations

from typing import Any

import pytest

from knowundo.planting.summary import groups_of_cells, summarize, summarize_trials
from knowundo.planting.table import tables


def cell(planting: str, kind: str, auc: float, planted: float, *draws: float) -> dict[str, Any]:
    scores = {"planted": planted, "reversion": 0.5} | {
        f"random-{n}": score for n, score in enumerate(draws, start=1)
    }
    return {
        "planting": planting,
        "kind": kind,
        "localizers": {"reversion": {"auc": auc, "average_precision": auc / 2}},
        "trials": [{"region": region, "score": score} for region, score in scores.items()],
    }


CELLS = [
    cell("early", "lora", 1.0, 0.9, 0.1, 0.3),
    cell("late", "lora", 0.8, 0.8, 0.4, 0.6),
    cell("late", "lora", 0.6, 0.7, 0.8, 0.6),
    cell("mlp", "full", 0.4, 0.6, 0.5, 0.5),
]


def result() -> dict[str, Any]:
    return {"summary": summarize(CELLS, 50), "trials": summarize_trials(CELLS, 50)}


def test_what_a_localizer_is_chosen_on_is_not_what_is_reported() -> None:
    groups = groups_of_cells(CELLS)
    assert {name: len(cells) for name, cells in groups.items()} == {
        "chosen on": 1, "reported": 3, "reported, full": 1, "reported, lora": 2,
    }  # fmt: skip


def test_means_and_intervals() -> None:
    found = summarize(CELLS, 500)
    reported = found["reported"]["reversion"]["auc"]
    assert reported["mean"] == pytest.approx(0.6)
    # Of two plantings a resample holds both, or one of them twice.
    assert (reported["low"], reported["high"], reported["n"]) == (0.4, pytest.approx(0.7), 3)
    assert found["chosen on"]["reversion"]["auc"]["low"] is None  # one planting has no spread
    assert found["reported"]["reversion"]["average_precision"]["mean"] == pytest.approx(0.3)


def test_regions_are_compared_with_random_ones() -> None:
    found = summarize_trials(CELLS, 100)["reported"]
    assert found["planted"]["score"]["mean"] == pytest.approx(0.7)
    assert found["planted"]["above random"]["mean"] == pytest.approx((0.3 + 0.0 + 0.1) / 3)
    assert found["planted"]["better than all random"] == 2
    assert set(found) == {"planted", "reversion", "random"}
    assert found["random"]["score"]["mean"] == pytest.approx((0.5 + 0.7 + 0.5) / 3)


def test_tables_show_every_group() -> None:
    ranking, trials = tables(result())
    assert len(ranking.columns) == 2 + 4
    assert len(trials.columns) == 1 + 3 * 4
    assert trials.row_count == 3
    assert len(tables(result() | {"trials": {}})) == 1
