"""`knowundo data`: records in and out, and what they are."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from knowundo.cli.options import AsJson, quiet

if TYPE_CHECKING:
    from knowundo.data.description import Description, Group, Lengths
    from knowundo.data.records import Record

Benchmark = Annotated[
    str, typer.Option(help="Name of the benchmark, see `knowundo list benchmarks`.")
]
Source = Annotated[
    str | None,
    typer.Option(
        help="Folder with the files of the benchmark. If omitted, they are read from the hub's "
        "cache or generated."
    ),
]
Subjects = Annotated[
    int | None,
    typer.Option(min=1, help="Number of subjects. If omitted, the benchmark chooses the number."),
]
Seed = Annotated[int, typer.Option(help="Random seed of generated records.")]

app = typer.Typer(
    help="Describe the records of a benchmark, or write them to files.", no_args_is_help=True
)


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
    benchmark: Benchmark = "embedded",
    domain: Annotated[
        list[str] | None,
        typer.Option(
            help="Domain to write. It can be repeated. If omitted, all domains are written."
        ),
    ] = None,
    source: Source = None,
    subjects: Subjects = None,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
) -> None:
    """Write train and val rows in the file format of the KnowUnDo benchmark."""
    from knowundo.data.knowundo_files import export_knowundo
    from knowundo.registry import get

    chosen = domain or list(get("benchmark", benchmark).facts["domains"])
    built = {out / d: _records(benchmark, d, seed, source, subjects) for d in chosen}
    for path, count in export_knowundo(built, force=force).items():
        print(f"{path}: {count} rows")


@app.command()
def describe(
    benchmark: Benchmark = "embedded",
    domain: Annotated[
        str | None,
        typer.Option(help="Domain of the benchmark. If omitted, its first one is described."),
    ] = None,
    source: Source = None,
    subjects: Subjects = None,
    seed: Seed = 0,
    base: Annotated[
        str, typer.Option(help="Folder or name of a base, whose tokenizer counts tokens.")
    ] = "embedded",
    as_json: AsJson = False,
) -> None:
    """Counts, lengths and duplicates of each scope and split, and how close the scopes are."""
    from dataclasses import asdict

    from knowundo.data.description import describe as described
    from knowundo.registry import get

    quiet()
    chosen = domain or next(iter(get("benchmark", benchmark).facts["domains"]))
    records = _records(benchmark, chosen, seed, source, subjects)
    found = described(records, _counter(base), name=benchmark, domain=chosen)
    if as_json:
        print(json.dumps({"benchmark": benchmark, "domain": chosen} | asdict(found), indent=1))
    else:
        _print(found)


def _records(
    benchmark: str, domain: str, seed: int, source: str | None, subjects: int | None
) -> list[Record]:
    from knowundo.registry import get

    entry = get("benchmark", benchmark)
    arguments = {"source": source, "subjects": subjects}
    given = {name: value for name, value in arguments.items() if value is not None}
    records: list[Record] = entry(**entry.bind({"domain": domain, "seed": seed} | given))
    return records


def _counter(base: str) -> Callable[[Sequence[Record]], list[int]]:
    """Counts the tokens of records, as a model that is trained on them sees them."""
    from knowundo.data.encoding import encode
    from knowundo.modeling.base import load_tokenizer

    tokenizer = load_tokenizer(base)

    def count(records: Sequence[Record]) -> list[int]:
        return [len(row.ids) for row in encode(records, tokenizer, max_length=sys.maxsize)]

    return count


def _print(found: Description) -> None:
    from rich.console import Console
    from rich.table import Table

    from knowundo.errors import plain

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("scope/split", no_wrap=True)
    for title in ("rows", "subjects", "question", "answer", "tokens", "repeated"):
        table.add_column(title, justify="right", no_wrap=True)
    for group in found.groups:
        table.add_row(*_cells(group))
    console = Console(highlight=False)
    console.print(table)
    console.print("Median/longest: words of question and answer, tokens of the row.")
    for sentence in filter(None, map(_remark, found.groups)):
        console.print(sentence, markup=False, soft_wrap=True)
    figures = [
        f"{name} {'–' if value is None else format(value, '.3f')}"
        + (f" (published {found.published[name]:.3f})" if found.published else "")
        for name, value in found.entanglement.items()
    ]
    console.print(f"Entanglement of unlearn and retention: {', '.join(figures)}.", soft_wrap=True)
    if found.problem:
        console.print(plain(f"No run can use them: {found.problem}"), markup=False, soft_wrap=True)


def _cells(group: Group) -> list[str]:
    def lengths(one: Lengths | None) -> str:
        return "–" if one is None else f"{one.median:.0f}/{one.longest}"

    told = map(lengths, (group.question_words, group.answer_words, group.tokens))
    counts = (str(group.rows), str(group.subjects))
    return [f"{group.scope}/{group.split}", *counts, *told, str(group.repeated)]


def _remark(group: Group) -> str | None:
    """Kinds of a group's rows, where they are not questions alone, and rows that train has too."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in group.kinds.items())
    told = [] if set(group.kinds) == {"qa"} else [kinds]
    if group.trained:
        told.append(f"{group.trained} rows are train rows too")
    return f"{group.scope}/{group.split}: {'; '.join(told)}." if told else None
