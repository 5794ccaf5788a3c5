"""`knowundo data`: records in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Write the records of a benchmark to files.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def export(
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Folder to write. It gets one folder per domain, with JSON files."
        ),
    ],
    benchmark: Annotated[
        str, typer.Option(help="Name of the benchmark, see `knowundo list benchmarks`.")
    ] = "embedded",
    domain: Annotated[
        list[str] | None,
        typer.Option(
            help="Domain to write. It can be repeated. If omitted, all domains are written."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Folder with the files of the benchmark. If omitted, they are read from the hub's "
            "cache or generated."
        ),
    ] = None,
    subjects: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of subjects. If omitted, the benchmark chooses the number."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of generated records.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
) -> None:
    """Write train and val rows in the file format of the KnowUnDo benchmark."""
    from knowundo.data.knowundo_files import export_knowundo
    from knowundo.registry import get

    entry = get("benchmark", benchmark)
    arguments = {"source": source, "subjects": subjects}
    given = {name: value for name, value in arguments.items() if value is not None}
    chosen = domain or list(entry.facts["domains"])
    built = {out / d: entry(**entry.bind({"domain": d, "seed": seed} | given)) for d in chosen}
    for path, count in export_knowundo(built, force=force).items():
        print(f"{path}: {count} rows")
