"""`knowundo compare`: two runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from knowundo.errors import plain


def compare(
    first: Annotated[Path, typer.Argument(help="A run's directory.")],
    second: Annotated[Path, typer.Argument(help="Another, which is measured against it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Show which keys of two runs differ, and how their models' scores do."""
    from dataclasses import asdict

    from knowundo.pipeline.comparison import compare as stage
    from knowundo.reporting.comparison import comparison_table

    keys, found = stage(first, second)
    if as_json:
        rows = [asdict(row) | {"change": row.change} for row in found]
        split = found[0].split if found else None
        print(json.dumps({"keys": keys, "split": split, "differences": rows}, indent=1))
        return
    from rich.console import Console

    console = Console(highlight=False)
    for key, one, other in keys:
        console.print(plain(f"{key}: {one} → {other}"), markup=False, soft_wrap=True)
    if not found:
        console.print("no scores to compare: the runs share no model that is scored on one split")
        return
    console.print(comparison_table(found))


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(compare)
