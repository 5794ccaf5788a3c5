"""Means and intervals over seeds."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from knowundo.results import Results, Row, VariantFacts
from knowundo.studies.grid import Point
from knowundo.studies.summary import StudyRun, interval, markdown, summarized


def results(value: float | None) -> Results:
    row = Row(
        variant="npo", metric="unlearn_success", scope="unlearn", split="val", value=value,
        records=4, subjects=2,
    )  # fmt: skip
    facts = VariantFacts(name="npo", role="unlearned")
    return Results(
        name="x", recipe_given={}, recipe_effective={}, revision={}, packages={"torch": "2"},
        hardware={"machine": "m"}, seeds={}, data_sha256="0" * 64, data_counts={}, model={},
        variants=[facts], rows=[row], comparisons=[],
    )  # fmt: skip


def test_the_interval_is_that_of_students_t() -> None:
    values = [30.0, 34.0, 38.0]
    low, high = stats.t.interval(0.95, 2, loc=34.0, scale=stats.sem(values))
    assert interval(values) == pytest.approx((low, high))
    # By hand: sd 4, standard error 4 / √3, factor 4.3027.
    assert interval(values) == pytest.approx((34 - 4.3027 * 4 / math.sqrt(3), 43.9366), abs=1e-3)
    assert interval([30.0]) is None


def test_seeds_of_one_setting_are_one_row() -> None:
    points = [
        Point(f"{domain}-{seed}", {"seed": seed, "data.domain": domain})
        for domain in ("privacy", "copyright")
        for seed in (0, 1, 2)
    ]
    held = [30.0, 34.0, 38.0, 50.0, None, 52.0]
    found = {p.name: results(value) for p, value in zip(points[:5], held, strict=False)}
    runs = [
        StudyRun(name=p.name, values=p.values, state="finished" if p.name in found else "missing")
        for p in points
    ]
    study = summarized(points, runs, found)
    assert [(row.setting, row.values, row.mean) for row in study.rows] == [
        ({"data.domain": "privacy"}, [30.0, 34.0, 38.0], 34.0),
        ({"data.domain": "copyright"}, [50.0], 50.0),
    ]
    assert study.rows[1].low is None
    assert [run.name for run in study.unfinished] == ["copyright-2"]
    assert study.packages == [{"torch": "2"}]
    text = markdown(study)
    assert "| npo | 3 | 34.0 ± 9.9 |" in text
    assert "| npo | 1 | 50.0 |" in text
    assert "- copyright-2: missing" in text
