"""What attacks bring back, as small multiples: one panel for each attack and measure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from knowundo.reporting.attacks import shown_columns
from knowundo.reporting.panels import Line, Multiples, Panel, multiples
from knowundo.reporting.verdict import Verdict
from knowundo.results import Results, Row

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_UNLEARN = {"token_accuracy": "token accuracy", "exact_match": "exact answers"}


def attack_panels(results: Results, verdict: Verdict) -> Multiples | None:
    """Percent that each setting of each attack brings back; `None` if none was tried.

    The dotted line is the retain model under the last setting. The best model is labelled, and so
    is the retain model; the others are grey, and their numbers stand in the table.
    """
    attacked = [row for row in results.rows if row.of_attack and row.subset is None]
    kinds = dict.fromkeys(str(row.attack).partition(": ")[0] for row in attacked)
    panels = []
    for kind in kinds:
        own = [row for row in attacked if str(row.attack).partition(": ")[0] == kind]
        for scope, metric, split in shown_columns(own):
            rows = [
                row for row in own if (row.scope, row.metric, row.split) == (scope, metric, split)
            ]
            if scope == "unlearn" and rows:
                panels.append(
                    _panel(results, rows, f"{kind}: {_UNLEARN[metric]}, {split}", verdict)
                )
    return multiples("attacks", "What attacks bring back of the unlearn scope", panels)


def _order(setting: str) -> tuple[float, str]:
    found = _NUMBER.search(setting)
    return (float(found[0]) if found else -1.0), setting


def _panel(results: Results, rows: Sequence[Row], title: str, verdict: Verdict) -> Panel:
    first = rows[0]
    settings = sorted({str(row.attack).partition(": ")[2] for row in rows}, key=_order)
    names = ["as asked", *settings]
    lines = []
    for variant in results.variants:
        asked = results.find(variant.name, first.metric, first.scope, first.split)
        points = [] if asked is None or asked.value is None else [(0.0, asked.value)]
        points += sorted(
            (float(names.index(str(row.attack).partition(": ")[2])), row.value)
            for row in rows
            if row.variant == variant.name and row.value is not None
        )
        if any(x > 0 for x, _ in points):
            ink, dash = _ink(variant.name, variant.role, verdict)
            lines.append(Line(variant.name, points, ink, dash, marks=True))
    # The labelled lines are drawn last, above the grey ones.
    lines.sort(key=lambda line: line.ink != "other")
    targets = [row.reference for row in rows if row.reference is not None]
    return Panel(title, lines, "setting of the attack", target=targets[-1] if targets else None,
                 y_limits=(-2.0, 104.0), names=names)  # fmt: skip


def _ink(name: str, role: str, verdict: Verdict) -> tuple[str, str | None]:
    if name == verdict.winner:
        return "best", None
    return ("target", "5 3") if role == "retain" else ("other", None)
