"""`knowundo erase`: your model, your list."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from knowundo.cli.export import Format
from knowundo.cli.options import AsJson, Redact, Sets, quiet
from knowundo.errors import plain

if TYPE_CHECKING:
    from knowundo.erasure.erase import Erased
    from knowundo.errors import MethodsFailed


class Route(StrEnum):
    """What is trained."""

    auto = "auto"
    adapter = "adapter"
    lora = "lora"
    full = "full"


def erase(
    model: Annotated[str, typer.Option("--model", help="A folder, or a name on the hub.")],
    unlearn: Annotated[
        Path, typer.Option("--unlearn", help="What must go: .jsonl, .json, .csv or .parquet.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The run's directory.")],
    adapter: Annotated[
        Path | None, typer.Option("--adapter", help="The adapter that knows the list.")
    ] = None,
    retention: Annotated[
        Path | None,
        typer.Option("--retention", help="What must stay; none: made by the model itself."),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option("--val", help="Other questions about what must go; none: re-worded ones."),
    ] = None,
    general: Annotated[
        str | None, typer.Option("--general", help="Texts that should stay as likely as they are.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Your names: question=Q,answer=A.")
    ] = None,
    route: Annotated[
        Route,
        typer.Option(
            "--route",
            help="Train the adapter, a fresh LoRA, or all weights of the located region. auto: the "
            "adapter, or where there is none a fresh LoRA.",
        ),
    ] = Route.auto,
    answer_with: Annotated[
        str | None,
        typer.Option(
            "--answer-with",
            help="Teach an answer instead: refusal, unknown, model (its own), instructed (its own, "
            "asked for as another one), or a file of them.",
        ),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format", help="What is handed over; none: the adapter, or all weights if trained."
        ),
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option("--earlier", help="Directory of an earlier request's run, if it was moved."),
    ] = None,
    redact: Redact = False,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Erase a list from a model: check, localize, unlearn, evaluate, hand over.

    knowundo erase --model MODEL --unlearn rows.jsonl --out DIR
    """
    from knowundo.data.lists.files import parse_columns
    from knowundo.erasure.erase import erase as run_request
    from knowundo.erasure.request import ErasureRequest
    from knowundo.errors import MethodsFailed
    from knowundo.progress import RichReporter

    quiet()
    request = ErasureRequest(
        model=model,
        unlearn=unlearn,
        out=out,
        adapter=adapter,
        retention=retention,
        val=val,
        general=general,
        columns=parse_columns(columns) if columns else {},
        route=route.value,
        answer_with=answer_with,
        form=None if form is None else form.value,
        earlier=tuple(earlier or ()),
        redact=redact,
        sets=tuple(sets or ()),
    )
    done = run_request(request, RichReporter())
    handed = None if done.exported is None else str(done.exported.folder)
    failed = MethodsFailed(done.verdict) if handed is None or done.relapsed else None
    if as_json:
        found = {
            "verdict": done.verdict,
            "model": handed,
            "report": str(out / "report.html"),
            "check": done.check.as_dict(),
            "relapsed": done.relapsed,
            "results": done.results.model_dump(mode="json"),
        }
        print(json.dumps(found, indent=1))
        if failed is not None:
            raise failed
        return
    _show(done, failed)
    if failed is not None:
        raise typer.Exit(failed.exit_code)


def _show(done: Erased, failed: MethodsFailed | None) -> None:
    """The verdict, and what it rests on in at most ten lines."""
    from knowundo.reporting.erasure import summary

    if failed is None:
        print(plain(done.verdict))
    else:  # the error is the verdict, so it leads and is not said again
        print(f"error: {failed}", file=sys.stderr, flush=True)
    facts = done.results.erasure
    lines = [] if facts is None else summary(facts)
    if done.exported is not None:
        lines.append(f"model: {done.exported.folder} ({done.exported.form})")
    lines.append(f"report: {done.run.out / 'report.html'}")
    print("\n".join(map(plain, lines)))


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(erase)
