"""Rows and columns of a run in the layout of the paper's tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from knowundo.reporting.paper.figures import (
    MEAN,
    SECONDS,
    SUCCESS,
    TASKS,
    Column,
    Figures,
    PaperRow,
    published,
    setting_of,
)
from knowundo.results import Results, Row


def _is_task(row: Row) -> bool:
    return row.scope == "general" and row.split is None  # a benchmark's own rows have a split


def run_tasks(results: Results) -> list[str]:
    """Names of the general tasks of the run, the paper's first; a group stands for its parts."""
    ran = dict.fromkeys(row.metric for row in results.rows if _is_task(row))
    asked = results.recipe_effective.get("evaluate", {}).get("general_tasks", ())
    shown = [name for name in asked if name in ran]
    if len(shown) < len(asked):  # a tag has no row of its own, only its tasks have
        parts = tuple(f"{name}_" for name in shown)
        shown += [name for name in ran if name not in shown and not name.startswith(parts)]
    paper = [column.key for column in TASKS]
    first = [name for name in paper if name in shown]
    return first + [name for name in shown if name not in first]


def paper_columns(results: Results) -> tuple[Column, ...]:
    """The table's columns after the variant's name and the source."""
    paper = [column.key for column in TASKS]
    others = [
        Column(name, "General", f"{name} ↑") for name in run_tasks(results) if name not in paper
    ]
    return (*SUCCESS, *TASKS, *others, MEAN, SECONDS)


def _task_values(rows: Iterable[Row]) -> dict[str, float | None]:
    """A variant's value of every task: its accuracy, or its first metric where it has none."""
    found: dict[str, float | None] = {}
    for row in rows:
        if _is_task(row) and (row.metric not in found or row.subset == "acc"):
            found[row.metric] = row.value
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where one is missing, for a mean over other tasks compares with nothing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _our_figures(results: Results, variant: str, columns: Sequence[Column]) -> Figures:
    own = [row for row in results.rows if row.variant == variant and row.attack is None]
    found = {(row.metric, row.scope, row.split, row.subset): row.value for row in own}
    tasks = _task_values(own)
    return {
        **{c.key: found.get((c.metric, c.scope, "val", None)) for c in columns if c.metric},
        **tasks,
        MEAN.key: _mean([tasks.get(name) for name in run_tasks(results)]),
    }


def paper_rows(results: Results, seconds_per_step: dict[str, float | None]) -> list[PaperRow]:
    """Our lines, and below each the paper's, where the run repeats a setting of the paper.

    Args:
        results: val rows and general tasks are shown; what was scored after an attack is not.
        seconds_per_step: wall clock of an optimizer step by variant.
    """
    setting, _ = setting_of(results)
    theirs = published(*setting.split("/")) if setting else {}
    columns = paper_columns(results)
    rows = []
    for name in (variant.name for variant in results.variants):
        figures = _our_figures(results, name, columns)
        figures[SECONDS.key] = seconds_per_step.get(name)
        rows.append(PaperRow(name, "ours", figures))
        if printed := theirs.get(name):
            shown = {c.key: printed.get(c.published) for c in columns if c.published}
            rows.append(PaperRow(name, "paper", shown))
    return rows
