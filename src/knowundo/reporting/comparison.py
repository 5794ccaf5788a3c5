"""Two runs side by side: every score of every model that both have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from knowundo.evaluation.result_rows import AVERAGE, Evaluation
from knowundo.results import Results

# What is compared: metric, scope, and a heading.
COMPARED = (
    ("unlearn_success", "unlearn", "Unlearn Success"),
    ("retention_success", "retention", "Retention Success"),
    (AVERAGE, None, "Average"),
    ("perplexity", "unlearn", "Unlearn PPL"),
    ("perplexity", "retention", "Retention PPL"),
    ("forced_rouge_l", "unlearn", "Unlearn ROUGE-L forced"),
    ("forced_rouge_l", "retention", "Retention ROUGE-L forced"),
)

# The splits to compare on, the best evidence first: val questions were never unlearned on. A user's
# own records may lack any split but train.
SPLITS = ("val", "train", "probe", "holdout")


@dataclass(frozen=True)
class Difference:
    """One metric of one model in two runs; the interval is of second − first, paired."""

    variant: str
    split: str
    metric: str
    scope: str | None
    heading: str
    first: float
    second: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    """p-value of a permutation test by subject."""

    @property
    def change(self) -> float:
        """The second value minus the first."""
        return self.second - self.first


def differences(
    first: Results,
    second: Results,
    tables: dict[str, tuple[pd.DataFrame, pd.DataFrame]],
) -> list[Difference]:
    """Every compared metric of every model that both runs have, on one split.

    Args:
        first: The run that the other is measured against.
        second: The other.
        tables: Model → its scored rows in both runs. Where the runs hold the same records,
            intervals resample subjects, the same in both; else there are none.

    Returns:
        The differences, all on the first of `SPLITS` that has scores of both scopes in both runs,
        or else on the first that has any. Empty if the runs share no scored model or no split.
    """
    on_each = [_on_split(first, second, split) for split in SPLITS]
    # A split with one scope only, such as val rows of what must go, says half of what matters.
    whole = [found for found in on_each if any(row.metric == AVERAGE for row in found)]
    found: list[Difference] = next(filter(None, [*whole, *on_each]), [])
    if first.data_sha256 != second.data_sha256:
        return found
    models = [name for name in tables if any(row.variant == name for row in found)]
    spreads = {name: _spreads(*tables[name], found[0].split) for name in models}
    ends = [spreads.get(row.variant, {}).get(row.metric, {}) for row in found]
    return [replace(row, **end) for row, end in zip(found, ends, strict=True)]


def _on_split(first: Results, second: Results, split: str) -> list[Difference]:
    """The differences on one split, without intervals; empty if no metric has two values."""
    found = []
    names = {variant.name for variant in second.variants}
    for variant in (v.name for v in first.variants if v.name in names):
        for metric, scope, heading in COMPARED:
            rows = [results.find(variant, metric, scope, split) for results in (first, second)]
            one, other = (None if row is None else row.value for row in rows)
            if one is not None and other is not None:
                found.append(Difference(variant, split, metric, scope, heading, one, other))
    return found


def _spreads(one: pd.DataFrame, other: pd.DataFrame, split: str) -> dict[str, dict[str, Any]]:
    evaluation = Evaluation({"first": one, "second": other}, target=None, draws=1000, seed=0)
    metrics = ("unlearn_success", "retention_success", AVERAGE)
    pairs = evaluation.compare("second", "first", split, metrics)
    return {pair.metric: pair.model_dump(include={"low", "high", "p"}) for pair in pairs}


def comparison_table(found: list[Difference]) -> Table:
    """A line for each metric, under a line for each model, for a terminal of 80 columns.

    Args:
        found: Of `differences`, at least one; the heading names their split.
    """
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column(f"model, {found[0].split} rows", overflow="fold")
    for heading in ("first", "second", "change", "95 % interval", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    last = None
    for row in found:
        if row.variant != last:
            table.add_row(Text(row.variant, style="bold"))
            last = row.variant
        spread = "" if row.low is None else f"{row.low:+.1f} … {row.high:+.1f}"
        chance = "" if row.p is None else f"{row.p:.3f}"
        numbers = (_number(row.first), _number(row.second), f"{row.change:+.3g}")
        table.add_row(f"  {row.heading}", *numbers, spread, chance)
    return table


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 10_000 else f"{value:.0e}"
