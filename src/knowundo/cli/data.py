"""`knowundo data`: records in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Records of a benchmark.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def export(
    out: Annotated[Path, typer.Option("--out", help="Folder to write <domain>/*.json into.")],
    benchmark: Annotated[str, typer.Option(help="Which benchmark.")] = "embedded",
    domain: Annotated[
        list[str] | None, typer.Option(help="Which domain; may be repeated; none: all.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Folder of the benchmark's files.")] = None,
    subjects: Annotated[int | None, typer.Option(min=1, help="How many subjects.")] = None,
    seed: Annotated[int, typer.Option(help="Of the records.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
) -> None:
    """Write train and val rows in KnowUnDo's own files."""
    from knowundo.data.knowundo_files import export_knowundo
    from knowundo.registry import get

    entry = get("benchmark", benchmark)
    arguments = {"source": source, "subjects": subjects}
    given = {name: value for name, value in arguments.items() if value is not None}
    chosen = domain or list(entry.facts["domains"])
    built = {out / d: entry(**entry.bind({"domain": d, "seed": seed} | given)) for d in chosen}
    for path, count in export_knowundo(built, force=force).items():
        print(f"{path}: {count} rows")
