"""The main table, in numbers, for the terminal, HTML and Markdown alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from knowundo.results import Results, Row

ROLES = {
    "base": "never saw any of it",
    "memorized": "knows both scopes: the start",
    "retain": "never saw the unlearn scope: the target",
}


@dataclass(frozen=True)
class Column:
    """One column: which row of results.json it shows."""

    title: str
    short: str  # for a terminal, two lines; empty: not shown there
    metric: str
    scope: str | None
    split: str
    subset: str | None
    better: str  # "higher", "lower", or "target": as near to the target as possible
    meaning: str


COLUMNS = (
    Column("Unlearn Success", "Unl.\nSucc", "unlearn_success", "unlearn", "val", None, "target",
           "100 − token accuracy on the unlearn scope; past the target is overshoot"),
    Column("Retention Success", "Ret.\nSucc", "retention_success", "retention", "val", None,
           "higher", "token accuracy on the retention scope"),
    Column("Average", "Avg", "average_success", None, "val", None, "higher",
           "mean of the two, as in KnowUnDo"),
    Column("Gap to target", "Gap", "gap_to_target", None, "val", None, "lower",
           "mean distance of the two from the retain model's"),
    Column("Facts unlearn", "Fact\nunl.", "fact_accuracy", "unlearn", "val", None, "target",
           "accuracy on the tokens of the fact alone, unlearn scope"),
    Column("Facts retain", "Fact\nret.", "fact_accuracy", "retention", "val", None, "higher",
           "accuracy on the tokens of the fact alone, retention scope"),
    Column("Exact unlearn", "Ex.\nunl.", "exact_match", "unlearn", "val", None, "target",
           "generated answers that are exactly the true one, unlearn scope"),
    Column("Exact retain", "Ex.\nret.", "exact_match", "retention", "val", None, "higher",
           "generated answers that are exactly the true one, retention scope"),
    Column("Exact re-worded", "", "exact_match", "unlearn", "probe", None, "target",
           "the same on re-worded train questions of the unlearn scope"),
    Column("General exact", "Gen.\nex.", "exact_match", "general", "val", "facts", "higher",
           "general facts that the base knew, answered exactly"),
    Column("Text perplexity", "", "perplexity", "general", "val", "text", "lower",
           "perplexity of plain text"),
)  # fmt: skip

# Of the table of models: at most five beside the name.
_MAIN = (
    ("unlearn_success", "Forgotten"),
    ("retention_success", "Kept"),
    ("gap_to_target", "Gap to target"),
    ("average_success", "Average"),
    ("exact_match unlearn", "Still exact"),
    ("exact_match general", "General facts"),
)


def main_columns(results: Results, split: str) -> list[Column]:
    """The columns that decide, for readers who have a minute.

    Args:
        results: With a retain model, the gap to it stands in place of the average.
        split: Rows that the verdict is about.
    """
    aims = any(variant.role == "retain" for variant in results.variants)
    known = {c.metric if c.metric != "exact_match" else f"{c.metric} {c.scope}": c
             for c in reversed(COLUMNS)}  # fmt: skip
    left_out = "average_success" if aims else "gap_to_target"
    found = []
    for name, title in _MAIN:
        column = known[name]
        if name != left_out:
            on = column.split if column.subset else split
            found.append(replace(column, title=title, split=on))
    return found


@dataclass(frozen=True)
class Cell:
    """A value as text, with its interval as text."""

    value: str
    interval: str


def _number(value: float) -> str:
    if abs(value) < 99.95:
        return f"{value:.1f}"
    return f"{value:.0f}" if abs(value) < 10_000 else f"{value:.0e}"


def cell(row: Row | None) -> Cell:
    """A row of results.json as text; a dash where nothing was scored."""
    if row is None or row.value is None:
        return Cell("–", "")
    spread = ""
    if row.low is not None and row.high is not None:
        spread = f"{_number(row.low)} … {_number(row.high)}"
    return Cell(_number(row.value), spread)


def main_table(results: Results) -> list[tuple[str, str, list[Cell]]]:
    """Name, role and cells of every variant; columns that no variant has are left dashes."""
    return [
        (
            variant.name,
            variant.role,
            [
                cell(results.find(variant.name, c.metric, c.scope, c.split, c.subset))
                for c in COLUMNS
            ],
        )
        for variant in results.variants
    ]


@dataclass(frozen=True)
class Plain:
    """A small table: headings, and a row of cells for each model."""

    headings: list[str]
    rows: list[tuple[str, list[Cell]]]


def prefix_table(results: Results) -> Plain | None:
    """Both successes on val rows, as asked and behind each prefix; None if none was tried."""
    attacks = list(
        dict.fromkeys(row.attack for row in results.rows if row.attack and not row.of_attack)
    )
    if not attacks:
        return None
    asked = [
        (scope, metric, attack)
        for attack in (None, *attacks)
        for scope, metric in (("unlearn", "unlearn_success"), ("retention", "retention_success"))
    ]
    headings = [f"{scope.capitalize()}, {attack or 'as asked'}" for scope, _, attack in asked]
    rows = [
        (v.name, [cell(results.find(v.name, m, s, "val", attack=a)) for s, m, a in asked])
        for v in results.variants
    ]
    return Plain(headings, rows)


def task_table(results: Results) -> Plain | None:
    """General tasks, every model; None if none was run."""
    found = {(row.variant, row.metric, row.subset): row for row in results.rows if _is_task(row)}
    tasks = list(dict.fromkeys((metric, subset) for _, metric, subset in found))
    if not tasks:
        return None
    rows = [
        (v.name, [cell(found.get((v.name, *task))) for task in tasks]) for v in results.variants
    ]
    return Plain([f"{metric} ({subset})" for metric, subset in tasks], rows)


def _is_task(row: Row) -> bool:
    return row.scope == "general" and row.split is None


def terminal_table(results: Results) -> Table:
    """The main table for a terminal of 80 columns."""
    shown = [column for column in COLUMNS if column.short]
    benchmark = results.recipe_effective["data"]
    table = Table(
        title=f"{benchmark['benchmark']} · {benchmark['domain']} · val rows · percent",
        caption="Unl., Ret.: the scopes. Succ: KnowUnDo's success. Fact: accuracy on the fact's "
        "tokens. Ex.: exact generated answers. Gen.: facts of the base. Beyond the target, which "
        "never saw the unlearn scope, is overshoot.",
        caption_justify="left",
        box=SIMPLE,
        padding=(0, 0),
        pad_edge=False,
    )
    table.add_column("\nModel", overflow="fold")
    for column in shown:
        table.add_column(column.short, justify="right", no_wrap=True)
    ruined = {variant.name: variant.ruin for variant in results.variants}
    guards = {variant.name for variant in results.variants if variant.guard is not None}
    for name, role, cells in main_table(results):
        style = {"retain": "green", "unlearned": ""}.get(role, "dim")
        label = f"{name} (target)" if role == "retain" else name
        if name in guards:
            label += " (guard)"
        if ruined[name]:
            label += f" ({', '.join(ruined[name])})"
        values = [c.value for c, column in zip(cells, COLUMNS, strict=True) if column in shown]
        table.add_row(Text(label), *values, style=style)
    return table
