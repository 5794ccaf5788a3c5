"""`knowundo compare`: runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knowundo.cli.options import AsJson
from knowundo.errors import BadInput, plain

if TYPE_CHECKING:
    from knowundo.reporting.comparison_page import Compared


def compare(
    first: Annotated[Path, typer.Argument(help="Directory of an evaluated run.")],
    others: Annotated[
        list[Path], typer.Argument(help="Directories of runs that are measured against the first.")
    ],
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write the comparison as a page.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print which recipe keys of runs differ, and how the scores of their models differ.

    Differences of runs with the same records have paired intervals and p-values.
    """
    from knowundo.pipeline.comparison import compare as stage
    from knowundo.reporting.comparison_page import Compared, write_comparison

    if html is not None and not html.resolve().parent.is_dir():
        raise BadInput(f"--html {html}: the folder is not there; make it, or name another")
    names = _names([first, *others])
    compared = [
        Compared(name, *stage(first, other)) for name, other in zip(names[1:], others, strict=True)
    ]
    if html is not None:
        write_comparison(html, names[0], compared)
    if as_json:
        found = [_as_json(one) for one in compared]
        print(json.dumps(found[0] if len(found) == 1 else {"comparisons": found}, indent=1))
        return
    for one in compared:
        _show(names[0], one, headed=len(compared) > 1)
    if html is not None:
        print(plain(f"page: {html}"))


def _names(folders: list[Path]) -> list[str]:
    """Last parts of the folders; of folders that share one, the whole paths."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _as_json(one: Compared) -> dict[str, Any]:
    from dataclasses import asdict

    rows = [asdict(row) | {"change": row.change} for row in one.found]
    split = one.found[0].split if one.found else None
    return {"run": one.name, "keys": one.keys, "split": split, "differences": rows}


def _show(first: str, one: Compared, *, headed: bool) -> None:
    from rich.console import Console

    from knowundo.reporting.comparison import comparison_table
    from knowundo.reporting.comparison_page import sentence

    console = Console(highlight=False)
    if headed:
        console.print(plain(f"{one.name} against {first}"), markup=False, style="bold")
    for key, before, after in one.keys:
        console.print(plain(f"{key}: {before} → {after}"), markup=False, soft_wrap=True)
    if not one.found:
        console.print("no scores to compare: the runs share no model that is scored on one split")
        return
    console.print(comparison_table(list(one.found)))
    console.print(plain(sentence(first, one)), markup=False, soft_wrap=True)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(compare)
