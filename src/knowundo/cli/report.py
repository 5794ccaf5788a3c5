"""`knowundo report`: the page of a run, its figures, and the paper's table."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knowundo.cli.options import AsJson, Config, Out, Redact, Sets, open_run, print_line

if TYPE_CHECKING:
    from knowundo.runs.run import Run


class Style(StrEnum):
    """What a report is."""

    html = "html"
    paper = "paper"


class TableFormat(StrEnum):
    """What the paper's table is printed in."""

    markdown = "markdown"
    latex = "latex"
    csv = "csv"


class FigureFormat(StrEnum):
    """What the figures are written as; `reporting.figure_files.Format`, without its imports."""

    svg = "svg"
    csv = "csv"
    png = "png"


def report(
    config: Config = None,
    sets: Sets = None,
    out: Out = Path("runs/run"),
    style: Annotated[
        Style,
        typer.Option(
            "--style",
            help="Style of the report: html (report.html), or paper (the table of the KnowUnDo "
            "paper as paper-table.md, .tex and .csv).",
        ),
    ] = Style.html,
    table_format: Annotated[
        TableFormat | None,
        typer.Option(
            "--format", help="Format of the printed paper table. If omitted, it is markdown."
        ),
    ] = None,
    figures: Annotated[
        list[FigureFormat] | None,
        typer.Option(
            "--figures",
            help="Also write the figures into RUN/figures as svg, csv or png (which needs the "
            "extra figures). It can be repeated.",
        ),
    ] = None,
    redact: Redact = False,
    as_json: AsJson = False,
) -> None:
    """Write a report of the evaluated run."""
    from knowundo.errors import BadInput
    from knowundo.pipeline.reporting import paper_report
    from knowundo.storage.files import read_text

    if style is Style.html:
        if table_format:
            raise BadInput("--format: report.html has one only; add --style paper")
        _write_html(open_run(config, sets, out), figures or [], redact, as_json)
        return
    if figures:
        raise BadInput("--figures: the paper style has none; leave out --style paper")
    written = paper_report(open_run(config, sets, out))
    if as_json:
        print_line({form: str(path) for form, path in written.items()}, as_json)
    else:
        print(read_text(written[table_format or TableFormat.markdown]), end="")


def _write_html(run: Run, figures: list[FigureFormat], redact: bool, as_json: bool) -> None:
    from knowundo.pipeline.reporting import report as stage
    from knowundo.pipeline.reporting import report_figures
    from knowundo.reporting.figure_files import Format

    # First: without the extra of one of the formats nothing is written.
    drawn = (
        report_figures(run, [Format(form) for form in dict.fromkeys(figures)]) if figures else []
    )
    said: dict[str, Any] = {"report": str(stage(run, redact=redact))}
    print_line(said | ({"figures": [str(path) for path in drawn]} if figures else {}), as_json)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(report)
