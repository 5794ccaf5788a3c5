"""report(): one self-contained HTML file, and the table for the terminal."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from knowundo.data.records import redacted
from knowundo.reporting.attacks import attack_table
from knowundo.reporting.plots import evaluation_steps, heat_map, paths, trade_off, training_curves
from knowundo.reporting.sentences import findings
from knowundo.reporting.tables import (
    COLUMNS,
    ROLES,
    main_table,
    prefix_table,
    task_table,
    terminal_table,
)
from knowundo.results import Results
from knowundo.storage.files import write_text

__all__ = ["REDACTED", "Material", "findings", "terminal_table", "write_page", "write_report"]

_EXAMPLES = 4
# Stands in the head of a page that holds no answer of the unlearn scope.
REDACTED = '<meta name="redacted" content="unlearn scope">'
_SCRIPT = re.compile(r"<script[^>]*>(.*?)</script>", re.DOTALL)


@dataclass(frozen=True)
class Material:
    """What a report is made of, beside results.json."""

    scores: dict[str, pd.DataFrame]  # variant → rows of `score_adapters`
    curves: dict[str, list[dict[str, Any]]]  # variant → training curve
    tensors: list[dict[str, Any]]  # of localize: name, place, cosine, magnitude
    region: str  # name of the located region
    located: set[str]  # its parameters
    seconds: dict[str, float]  # variant → wall clock of its last training


def write_report(path: Path, results: Results, material: Material, *, redact: bool = False) -> None:
    """Write the report; whatever a model or a record says is escaped.

    Args:
        path: the HTML file.
        results: the numbers.
        material: curves, gradients and answers.
        redact: show hash and length in place of what is said of the unlearn scope.
    """
    environment = Environment(
        loader=PackageLoader("knowundo", "reporting"), autoescape=True, undefined=StrictUndefined
    )
    tried_rates, evaluated = paths(results), evaluation_steps(results)
    figures = {
        "paths": _html(tried_rates) if tried_rates else None,
        "evaluation_steps": _html(evaluated) if evaluated else None,
        "trade_off": _html(trade_off(results), script=True),
        "heat_map": _html(heat_map(material.tensors, material.located))
        if material.tensors
        else None,
        "curves": _html(training_curves(material.curves)) if material.curves else None,
    }
    rates = {v.name: f"{v.lr:g}" for v in results.variants if v.lr is not None}
    tried = sorted({a["lr"] for v in results.variants for a in v.attempts})
    examples = _examples(material.scores, redact=redact)
    text = environment.get_template("report.html.j2").render(
        policy=policy(figure for figure in figures.values() if figure),
        redacted=Markup(REDACTED) if redact else "",
        redact=redact,
        private=any(example["scope"] == "unlearn" for example in examples),
        results=results,
        data=results.recipe_effective["data"],
        findings=findings(results),
        columns=COLUMNS,
        rows=main_table(results),
        roles=ROLES,
        rates=rates,
        ruined={variant.name: variant.ruin for variant in results.variants},
        guards={v.name: v.guard for v in results.variants if v.guard is not None},
        seconds=material.seconds,
        auto=f"{tried[0]:g} and {tried[-1]:g}" if tried else "",
        figures=figures,
        prefixed=prefix_table(results),
        attacked=attack_table(results),
        tasks=task_table(results),
        region=material.region,
        located=len(material.located),
        tensors=len(material.tensors),
        examples=examples,
        recipe=yaml.safe_dump(results.recipe_effective, sort_keys=False),
    )
    write_text(path, text)


def _html(figure: Figure, *, script: bool = False) -> Markup:
    """A figure's markup. Its JSON is plotly's own, with `<` escaped by it."""
    body = figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})
    head = f"<script>{get_plotlyjs()}</script>" if script else ""
    return Markup(head + body)


def write_page(path: Path, title: str, figure: Figure) -> None:
    """Write one figure as a page of its own."""
    body = _html(figure, script=True)
    head = Markup(
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="{}">'
        '<meta name="referrer" content="no-referrer"><title>{}</title>'
    )
    write_text(path, head.format(policy([body]), title) + body)


def policy(parts: Iterable[str]) -> str:
    """A Content-Security-Policy for a page: its own scripts by their hash, and no network.

    Args:
        parts: the markup that we wrote ourselves; no other script is to run.
    """
    scripts = [script for part in parts for script in _SCRIPT.findall(part)]
    hashes = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; script-src {allowed or chr(39) + 'none' + chr(39)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _examples(scores: dict[str, pd.DataFrame], *, redact: bool) -> list[dict[str, Any]]:
    """The first val rows of each scope that were answered, with every variant's answer."""

    def shown(scope: Any, text: Any) -> Any:
        return redacted(text) if redact and scope == "unlearn" and text is not None else text

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
            "answer": shown(row.scope, row.answer),
            "said": [(name, shown(row.scope, a[str(row.id)])) for name, a in said.items()],
        }
        for row in chosen
    ]
