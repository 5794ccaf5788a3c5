"""`knowundo certify`: the evidence on one model of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from knowundo.cli.options import AsJson, quiet


def certify(
    run: Annotated[Path, typer.Argument(help="Directory of the run.")],
    variant: Annotated[
        str, typer.Option("--variant", help="Name of the model, such as an unlearned variant.")
    ],
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            help="The controller's ed25519 private key (PEM), which signs, and from which the key "
            "that hides texts is derived. If omitted, the certificate is not signed.",
        ),
    ] = None,
    reveal: Annotated[
        bool,
        typer.Option("--reveal", help="Also show the texts that had to go, beside their hashes."),
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help="Folder of an export of the model, if that is delivered. If omitted, the run's "
            "own weights are certified.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the certificate of one model: evidence.json, one page, a model card, a statement.

    The verdict is against the criteria of the recipe's section `acceptance`, which has to stand
    there before the run.
    """
    from knowundo.certificate.certify import certify as write
    from knowundo.errors import plain
    from knowundo.progress import RichReporter
    from knowundo.runs.run import Run

    quiet()
    done = write(Run.existing(run, RichReporter()), variant, key=key, reveal=reveal, exported=model)
    if as_json:
        print(json.dumps(done.evidence.model_dump(mode="json"), indent=1))
        return
    print(plain(done.evidence.sentence))
    for one in done.evidence.answers:
        print(plain(f"{one.question} {one.sentence}"))
    signed = "not signed" if done.key_id is None else f"signed with key {done.key_id}"
    print(plain(f"certificate: {done.folder} ({signed})"))


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(certify)
