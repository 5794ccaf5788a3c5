"""report(): one self-contained HTML file, and the table for the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from knowundo.artifacts import write_text
from knowundo.reporting.plots import heat_map, paths, trade_off, training_curves, watched
from knowundo.reporting.tables import (
    COLUMNS,
    ROLES,
    main_table,
    prefix_table,
    task_table,
    terminal_table,
)
from knowundo.reporting.words import findings
from knowundo.results import Results

__all__ = ["Material", "findings", "terminal_table", "write_report"]

_EXAMPLES = 4


@dataclass(frozen=True)
class Material:
    """What a report is made of, beside results.json."""

    scores: dict[str, pd.DataFrame]  # variant → rows of scoring.score
    curves: dict[str, list[dict[str, Any]]]  # variant → training curve
    tensors: list[dict[str, Any]]  # of localize: name, place, cosine, magnitude
    region: str  # name of the located region
    located: set[str]  # its parameters
    seconds: dict[str, float]  # variant → wall clock of its last training


def write_report(path: Path, results: Results, material: Material) -> None:
    """Write the report; whatever a model or a record says is escaped."""
    environment = Environment(
        loader=PackageLoader("knowundo", "reporting"), autoescape=True, undefined=StrictUndefined
    )
    tried_rates, looks = paths(results), watched(results)
    figures = {
        "paths": _html(tried_rates) if tried_rates else None,
        "looks": _html(looks) if looks else None,
        "trade_off": _html(trade_off(results), script=True),
        "heat_map": _html(heat_map(material.tensors, material.located))
        if material.tensors
        else None,
        "curves": _html(training_curves(material.curves)) if material.curves else None,
    }
    rates = {v.name: f"{v.lr:g}" for v in results.variants if v.lr is not None}
    tried = sorted({a["lr"] for v in results.variants for a in v.attempts})
    text = environment.get_template("report.html.j2").render(
        results=results,
        data=results.recipe_effective["data"],
        findings=findings(results),
        columns=COLUMNS,
        rows=main_table(results),
        roles=ROLES,
        rates=rates,
        ruined={v.name: v.collapsed for v in results.variants if v.collapsed},
        seconds=material.seconds,
        auto=f"{tried[0]:g} and {tried[-1]:g}" if tried else "",
        figures=figures,
        prefixed=prefix_table(results),
        tasks=task_table(results),
        region=material.region,
        located=len(material.located),
        tensors=len(material.tensors),
        examples=_examples(material.scores),
        recipe=yaml.safe_dump(results.recipe_effective, sort_keys=False),
    )
    write_text(path, text)


def _html(figure: Figure, *, script: bool = False) -> Markup:
    """A figure's markup. Its JSON is plotly's own, with `<` escaped by it."""
    body = figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})
    head = f"<script>{get_plotlyjs()}</script>" if script else ""
    return Markup(head + body)


def _examples(scores: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """The first val rows of each scope that were answered, with every variant's answer."""
    said = {
        name: dict(zip(table["id"], table["said"], strict=True)) for name, table in scores.items()
    }
    base = next(iter(scores.values()))
    answered = base[(base["split"] == "val") & base["said"].notna()]
    chosen = [
        row
        for scope in ("unlearn", "retention", "general")
        for row in answered[answered["scope"] == scope].head(_EXAMPLES).itertuples()
    ]
    return [
        {
            "scope": row.scope,
            "question": row.question,
            "answer": row.answer,
            "said": [(name, answers[str(row.id)]) for name, answers in said.items()],
        }
        for row in chosen
    ]
