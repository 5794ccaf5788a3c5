"""The study's result on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.table import Table


def tables(result: Mapping[str, Any]) -> list[Table]:
    """How well localizers rank planted tensors, and what training in their regions is worth.

    Args:
        result: What `score_localizers` returns.
    """
    found = [_ranking(result["summary"])]
    if result["trials"]:
        found.append(_trials(result["trials"]))
    return found


def _ranking(summary: Mapping[str, Any]) -> Table:
    """AUC by group of plantings, the best localizer first."""
    groups = list(summary)
    last = "reported" if "reported" in groups else groups[0]
    table = Table("localizer", box=SIMPLE, title="AUC of planted tensors (0.5: chance)")
    for group in groups:
        table.add_column(f"{group}\nn={_count(summary[group])}", justify="right")
    table.add_column(f"average precision\n{last}", justify="right")
    for name in sorted(summary[last], key=lambda name: -summary[last][name]["auc"]["mean"]):
        cells = [_shown(summary[group][name]["auc"]) for group in groups]
        table.add_row(name, *cells, _shown(summary[last][name]["average_precision"]))
    return table


def _trials(trials: Mapping[str, Any]) -> Table:
    """The score of unlearning in each region, and against random regions of the same size."""
    table = Table("region", box=SIMPLE, title="Unlearning in a region (harmonic mean, 0 to 1)")
    for group in trials:
        for column in ("score", "above random", "beats all random"):
            table.add_column(f"{column}\n{group}", justify="right")
    for name in next(iter(trials.values())):
        cells = []
        for group in trials.values():
            found = group[name]
            cells.append(_shown(found["score"]))
            against = "above random" in found  # not of the random regions themselves
            cells.append(_shown(found["above random"]) if against else "")
            count = found["better than all random"] if against else 0
            cells.append(f"{count} of {found['score']['n']}" if against else "")
        table.add_row(name, *cells)
    return table


def _count(localizers: Mapping[str, Any]) -> int:
    return int(next(iter(localizers.values()))["auc"]["n"])


def _shown(value: Mapping[str, Any]) -> str:
    mean = f"{value['mean']:.2f}"
    return mean if value["low"] is None else f"{mean} ({value['low']:.2f}–{value['high']:.2f})"
