"""`knowundo export`: one model of a run, as a folder for others."""

from __future__ import annotations

import json
import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from knowundo.cli.options import AsJson, quiet


class Format(StrEnum):
    """What a folder holds."""

    adapter = "adapter"
    merged = "merged"


def export(
    run: Annotated[Path, typer.Argument(help="Directory of the run.")],
    variant: Annotated[
        str,
        typer.Option(
            "--variant",
            help="Model to export: memorized, retain, or the name of an unlearned variant.",
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="Folder to write.")],
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="Form of the exported model. If omitted, a LoRA is exported as an adapter, and "
            "other weights are merged into a full model.",
        ),
    ] = None,
    shard_size: Annotated[
        str, typer.Option("--shard-size", help="Maximum size of one file of merged weights.")
    ] = "5GB",
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            "--push-to-hub",
            help="Hub repository to upload the model to. It is created as private if it does not "
            "exist. If omitted, nothing is uploaded.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export one model as a folder that peft or transformers can load, with a model card."""
    from knowundo.erasure.request import ERASED
    from knowundo.erasure.request_log import LOG_FILE
    from knowundo.exports.export import export as write
    from knowundo.progress import RichReporter
    from knowundo.runs.run import Run

    quiet()
    opened = Run.existing(run, RichReporter())
    log = run / "model" / LOG_FILE  # of an erasure: it travels with the model

    def beside(folder: Path) -> None:
        if variant == ERASED and log.is_file():
            shutil.copy(log, folder / LOG_FILE)

    done = write(
        opened,
        variant,
        to,
        form=None if form is None else form.value,
        shard_size=shard_size,
        push_to_hub=push_to_hub,
        beside=beside,
    )
    if as_json:
        print(json.dumps(done._asdict(), default=str))
        return
    print(f"folder: {done.folder}")
    print(f"form: {done.form}, {len(done.files)} files")
    print(f"largest difference of a logit: {done.largest_difference:.2g} on {done.probes} texts")
    if done.url is not None:
        print(f"hub: {done.url}")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(export)
