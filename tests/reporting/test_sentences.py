"""What the report says of a located region follows from the numbers."""

from __future__ import annotations

import pytest

from knowundo.reporting.sentences import findings
from knowundo.results import Comparison, Results, Row, VariantFacts


def results(
    forgot: dict[str, float], differences: dict[str, tuple[float, float, float]]
) -> Results:
    """Train Unlearn Success by variant; gap differences of `located` from its controls."""
    regions = {"located": "memflex", "one": "random-1", "two": "random-2", "all": "everything"}
    rows = [
        Row(
            variant=name, metric="unlearn_success", scope="unlearn", split="train", value=value,
            records=1, subjects=1,
        )
        for name, value in forgot.items()
    ]  # fmt: skip
    facts = [VariantFacts(name=name, role="unlearned", region=regions[name]) for name in forgot]
    facts += [VariantFacts(name=role, role=role) for role in ("memorized", "retain")]
    pairs = [
        Comparison(
            variant="located", against=name, metric="gap_to_target", split="val", value=value,
            low=low, high=high,
        )
        for name, (value, low, high) in differences.items()
    ]  # fmt: skip
    return Results(
        name="x", recipe_given={}, recipe_effective={}, revision={}, packages={}, hardware={},
        seeds={}, data_sha256="", data_counts={}, model={}, variants=facts, rows=rows,
        comparisons=pairs,
    )  # fmt: skip


SAME = {"located": 60.0, "one": 62.0, "two": 57.0, "all": 60.0}


@pytest.mark.parametrize(
    ("forgot", "differences", "said"),
    [
        (
            SAME,
            {"one": (-3.0, -5.0, -1.0), "two": (-2.0, -4.0, -0.5)},
            "did better than every random region",
        ),
        (
            SAME,
            {"one": (-3.0, -5.0, -1.0), "two": (2.0, 0.5, 4.0)},
            "no evidence that the located region matters: it did better than 1 and worse than 1 of "
            "2 random regions",
        ),
        (
            SAME,
            {"one": (1.0, -1.0, 2.0), "all": (3.0, 1.0, 5.0)},
            "and worse than the same loss everywhere",
        ),
        (
            SAME | {"one": 25.0, "two": 43.0},
            {"one": (-9.0, -10.0, -8.0), "two": (-5.0, -6.0, -4.0)},
            "no verdict on the located region; not compared, because it unlearned the train rows "
            "to another degree (by over 12 points): one, two",
        ),
    ],
)
def test_verdict_on_a_region(
    forgot: dict[str, float], differences: dict[str, tuple[float, float, float]], said: str
) -> None:
    assert said in findings(results(forgot, differences))[-1]


def scored(split: str, **values: float | None) -> Results:
    """Success of the retain model and of one method, by the metric's name."""
    found = results({}, {})
    found.variants = [VariantFacts(name="retain", role="retain")]
    found.variants += [VariantFacts(name=name, role="unlearned") for name in ("a", "b")]
    scopes = {"unlearn_success": "unlearn", "retention_success": "retention"}
    found.rows = [
        Row(
            variant=variant.name, metric=metric, scope=scopes.get(metric), split=split,
            value=value, records=0 if value is None else 1, subjects=1,
        )
        for variant in found.variants
        for metric, value in values.items()
    ]  # fmt: skip
    return found


def test_without_val_rows_the_sentences_are_about_train_rows_and_say_so() -> None:
    values = {"unlearn_success": 40.0, "retention_success": 90.0, "average_success": 65.0}
    with_val, without = scored("val", **values), scored("train", **values)
    without.rows += scored("val", **dict.fromkeys(values)).rows
    first, *rest = findings(without)
    assert first.startswith("The benchmark has no val rows")
    assert rest == findings(with_val)
    assert "Highest average, overshoot included: a (Unlearn Success 40.0" in rest[-1]
    assert not any("nan" in line or "None" in line for line in [first, *rest])


def test_a_scope_without_val_rows_is_not_measured() -> None:
    said = findings(scored("val", unlearn_success=40.0, retention_success=None))
    assert said == [
        "Target, by the retain model that never saw the unlearn scope: Unlearn Success 40.0, "
        "Retention Success not measured. Unlearn Success beyond it is overshoot."
    ]
