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
            "no verdict on the located region; not compared, because it forgot the train rows to "
            "another degree (by over 12 points): one, two",
        ),
    ],
)
def test_verdict_on_a_region(
    forgot: dict[str, float], differences: dict[str, tuple[float, float, float]], said: str
) -> None:
    assert said in findings(results(forgot, differences))[-1]
