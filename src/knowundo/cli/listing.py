"""`knowundo list`: what can be named in a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer

from knowundo.cli.options import AsJson

# Kinds that a plan can name as its method, and what a list calls them.
_KINDS = {"method": "loss", "guard": "guard"}


class What(StrEnum):
    """Kinds of things to list."""

    methods = "methods"
    localizers = "localizers"
    attacks = "attacks"
    metrics = "metrics"
    scorers = "scorers"
    benchmarks = "benchmarks"
    combinations = "combinations"
    presets = "presets"
    templates = "templates"


def _registered(kind: str) -> list[dict[str, Any]]:
    from knowundo.declarations import declared

    rows = []
    for one in declared(kind):
        row = {"name": one.name, "arguments": one.arguments, "summary": one.summary, **one.facts}
        if kind in (*_KINDS, "combination", "localizer", "attack"):
            row["papers"] = [asdict(paper) for paper in one.papers]
        if kind in _KINDS:
            row["kind"] = _KINDS[kind]
        rows.append(row)
    return rows


def _methods() -> list[dict[str, Any]]:
    """Losses and guards: whatever a plan can name as its method."""
    return sorted((row for kind in _KINDS for row in _registered(kind)), key=lambda r: r["name"])


def _source(row: Mapping[str, Any]) -> str:
    """Papers of a method or localizer, and what it reads, changes or needs; else nothing."""
    papers = (f"{paper['paper']}, arXiv:{paper['arxiv']}" for paper in row.get("papers", ()))
    reads = f"reads {', '.join(row['reads'])}" if row.get("reads") else ""
    needs = f"needs {', '.join(row['needs'])}" if row.get("needs") else ""
    changes = ""
    if "changes" in row:
        guard = row.get("kind") == "guard"
        changes = f"a guard: changes {row['changes']}, no weights" if guard else ""
        changes = changes or f"changes {row['changes']}"
    return "; ".join(filter(None, (*papers, reads, needs, changes)))


def _data(row: Mapping[str, Any]) -> str:
    """Domains, size, licence and origin of a benchmark; nothing for other kinds."""
    if "domains" not in row:
        return ""
    told = {
        "domains": ", ".join(row["domains"]),
        "size": row.get("size"),
        "licence": f"{row['licence']}; {row['citation']}",
        "requires": row.get("requires"),
    }
    return "\n".join(f"{name}: {said}" for name, said in told.items() if said)


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
    if what is What.methods:
        return _methods()
    return _templates() if what is What.templates else _registered(what.value.removesuffix("s"))


def listing(
    what: Annotated[What, typer.Argument(help="What to list.")],
    as_json: AsJson = False,
) -> None:
    """List what can be named in a recipe; combinations are of gradients, templates of data."""
    rows = _rows(what)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from knowundo.errors import plain

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    for row in rows:
        arguments = ", ".join(f"{k}={v}" for k, v in row.get("arguments", {}).items())
        about = plain(row["template"]) if "template" in row else arguments
        if what is What.presets:
            about = row["kind"]
        described = "\n".join(filter(None, (row["summary"], _source(row), _data(row))))
        table.add_row(*map(escape, (row["name"], about, described)))
    Console(highlight=False).print(table)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(name="list")(listing)
