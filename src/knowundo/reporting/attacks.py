"""What attacks bring back: a table for the report, and lines for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from knowundo.reporting.tables import Cell, cell
from knowundo.results import Results, Row

# Which rows are shown, by metric: the first of these splits that was scored.
_SPLITS = {"token_accuracy": ("train", "val", "probe"), "exact_match": ("train", "probe", "val")}
_TITLES = {"token_accuracy": "token accuracy", "exact_match": "exact answers"}
_SCOPES = ("unlearn", "retention")


@dataclass(frozen=True)
class AttackTable:
    """Headings, and a row of cells for each model as asked and under each attack."""

    headings: list[str]
    rows: list[tuple[str, str, list[Cell]]]


def attack_table(results: Results) -> AttackTable | None:
    """Token accuracy and exact answers under every attack; `None` if none was tried."""
    attacked = [row for row in results.rows if row.of_attack]
    if not attacked:
        return None
    columns = shown_columns(attacked)
    found = {
        (row.variant, row.attack, row.scope, row.metric, row.split): row
        for row in results.rows
        if row.subset is None
    }
    pairs = dict.fromkeys((row.variant, row.attack) for row in attacked)
    rows = []
    for variant in results.variants:
        own = [attack for name, attack in pairs if name == variant.name]
        for attack in [None, *own] if own else []:
            cells = [_cell(found.get((variant.name, attack, *column))) for column in columns]
            rows.append((variant.name, attack or "as asked", cells))
    return AttackTable([_heading(*column) for column in columns], rows)


def shown_columns(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Scope, metric and split of each column."""
    there = {(row.scope, row.metric, row.split) for row in rows}
    found = []
    for scope in _SCOPES:
        for metric, splits in _SPLITS.items():
            scored = [split for split in splits if (scope, metric, split) in there]
            found += [(scope, metric, split) for split in scored[:1]]
    return found


def _heading(scope: str, metric: str, split: str) -> str:
    return f"{scope.capitalize()} {_TITLES[metric]}, {split}"


def _cell(row: Row | None) -> Cell:
    """Value and interval; behind it the target."""
    shown = cell(row)
    if row is None or row.reference is None:
        return shown
    target = f"target {row.reference:.1f}"
    return Cell(shown.value, f"{shown.interval}; {target}" if shown.interval else target)


def attack_lines(rows: Sequence[Row]) -> list[str]:
    """Rows of one attack for the terminal, one line for each model and setting."""
    columns = shown_columns(rows)
    found = {
        (row.variant, row.attack, row.scope, row.metric, row.split): row
        for row in rows
        if row.subset is None
    }
    lines = []
    for variant, attack in dict.fromkeys((row.variant, row.attack) for row in rows):
        parts = []
        for column in columns:
            row = found.get((variant, attack, *column))
            if row is not None and row.value is not None:
                target = "" if row.reference is None else f" (target {row.reference:.1f})"
                parts.append(f"{_heading(*column).lower()} {row.value:.1f}{target}")
        lines.append(f"{variant}, {attack}: {'; '.join(parts)}")
    return lines
