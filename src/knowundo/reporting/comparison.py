"""Two runs side by side: every score of every model that both have."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from knowundo.evaluation.result_rows import AVERAGE, Evaluation
from knowundo.results import Results

# What is compared, all on val rows: metric, scope, and a heading.
COMPARED = (
    ("unlearn_success", "unlearn", "Unlearn Success"),
    ("retention_success", "retention", "Retention Success"),
    (AVERAGE, None, "Average"),
    ("perplexity", "unlearn", "Unlearn PPL"),
    ("perplexity", "retention", "Retention PPL"),
    ("forced_rouge_l", "unlearn", "Unlearn ROUGE-L forced"),
    ("forced_rouge_l", "retention", "Retention ROUGE-L forced"),
)


@dataclass(frozen=True)
class Difference:
    """One metric of one model in two runs; the interval is of second − first, paired."""

    variant: str
    metric: str
    scope: str | None
    heading: str
    first: float
    second: float
    low: float | None = None
    high: float | None = None

    @property
    def change(self) -> float:
        """The second value minus the first."""
        return self.second - self.first


def differences(
    first: Results,
    second: Results,
    tables: dict[str, tuple[pd.DataFrame, pd.DataFrame]],
) -> list[Difference]:
    """Every compared metric of every model that both runs have.

    Args:
        first: the run that the other is measured against.
        second: the other.
        tables: model → its scored rows in both runs. Where the runs hold the same records,
            intervals resample subjects, the same in both; else there are none.
    """
    paired = first.data_sha256 == second.data_sha256
    found = []
    names = {variant.name for variant in second.variants}
    for variant in (v.name for v in first.variants if v.name in names):
        spreads = _spreads(*tables[variant]) if paired and variant in tables else {}
        for metric, scope, heading in COMPARED:
            one = first.find(variant, metric, scope, "val")
            other = second.find(variant, metric, scope, "val")
            if one is None or other is None or one.value is None or other.value is None:
                continue
            low, high = spreads.get(metric, (None, None))
            found.append(
                Difference(variant, metric, scope, heading, one.value, other.value, low, high)
            )
    return found


def _spreads(
    one: pd.DataFrame, other: pd.DataFrame
) -> dict[str, tuple[float | None, float | None]]:
    evaluation = Evaluation({"first": one, "second": other}, target=None, draws=1000, seed=0)
    metrics = ("unlearn_success", "retention_success", AVERAGE)
    pairs = evaluation.compare("second", "first", metrics=metrics)
    return {pair.metric: (pair.low, pair.high) for pair in pairs}


def comparison_table(found: list[Difference]) -> Table:
    """A line for each metric, under a line for each model, for a terminal of 80 columns."""
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("model, val rows", overflow="fold")
    for heading in ("first", "second", "change", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    last = None
    for row in found:
        if row.variant != last:
            table.add_row(Text(row.variant, style="bold"))
            last = row.variant
        spread = "" if row.low is None else f"{row.low:+.1f} … {row.high:+.1f}"
        numbers = (_number(row.first), _number(row.second), f"{row.change:+.3g}")
        table.add_row(f"  {row.heading}", *numbers, spread)
    return table


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 10_000 else f"{value:.0e}"
