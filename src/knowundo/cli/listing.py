"""`knowundo list`: what can be named in a recipe."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from knowundo.cli.options import AsJson


class What(StrEnum):
    """Kinds of things to list."""

    methods = "methods"
    localizers = "localizers"
    metrics = "metrics"
    benchmarks = "benchmarks"
    presets = "presets"
    templates = "templates"


def _registered(kind: str) -> list[dict[str, Any]]:
    from knowundo.declarations import declared

    return [
        {"name": one.name, "arguments": one.arguments, "summary": one.summary, **one.facts}
        for one in declared(kind)
    ]


def _presets() -> list[dict[str, Any]]:
    from knowundo.recipes.presets import presets

    return [
        {"name": name, "kind": kind.removesuffix("s"), "summary": summary}
        for kind in ("recipes", "methods")
        for name, summary in presets(kind).items()
    ]


def _templates() -> list[dict[str, Any]]:
    from knowundo.data.templates import template_presets

    return [
        {"name": name, "template": one.text, "system": one.system, "summary": one.summary}
        for name, one in template_presets().items()
    ]


def _rows(what: What) -> list[dict[str, Any]]:
    if what is What.presets:
        return _presets()
    return _templates() if what is What.templates else _registered(what.value.removesuffix("s"))


def listing(
    what: Annotated[What, typer.Argument(help="What to list.")],
    as_json: AsJson = False,
) -> None:
    """List methods, localizers, metrics, benchmarks, presets or templates (`data.template`)."""
    rows = _rows(what)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from knowundo.errors import plain

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        arguments = ", ".join(f"{k}={v}" for k, v in row.get("arguments", {}).items())
        about = row.get("kind", plain(row["template"]) if "template" in row else arguments)
        table.add_row(*map(escape, (row["name"], about, row["summary"])))
    Console(highlight=False).print(table)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(name="list")(listing)
