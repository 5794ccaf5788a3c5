"""`knowundo compare`: two runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from knowundo.cli.options import AsJson
from knowundo.errors import plain


def compare(
    first: Annotated[Path, typer.Argument(help="Directory of an evaluated run.")],
    second: Annotated[
        Path, typer.Argument(help="Directory of the run that is measured against the first.")
    ],
    as_json: AsJson = False,
) -> None:
    """Print which recipe keys of two runs differ, and how the scores of their models differ."""
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
