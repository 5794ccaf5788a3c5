"""Commands that verify the artifacts of a run, and that remove what must not be kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from knowundo.cli.options import AsJson

Where = Annotated[Path, typer.Argument(help="Directory of the run.")]


def verify(
    run: Annotated[
        Path, typer.Argument(help="Directory of the run, or the folder of a certificate.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help="Folder of the weights that a certificate is about. If omitted, those in its run.",
        ),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(
            "--public-key",
            help="The controller's public key (PEM), which a certificate has to be signed with. If "
            "omitted, the key beside the certificate is used, which shows no more than that it is "
            "whole.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the hash of every artifact, and every certificate. Exit code 2: something differs."""
    from knowundo.certificate.verifying import verify_all
    from knowundo.errors import BadInput, plain

    found = verify_all(run, model=model, public=public_key)
    bad = [one for one in found if one.bad]
    if as_json:
        print(json.dumps([one.model_dump() | {"bad": one.bad} for one in found], indent=1))
    else:
        for one in found:
            print(plain(f"{one.state:<10} {one.name}" + (f": {one.detail}" if one.detail else "")))
    if bad:
        raise BadInput(
            f"{run}: {len(bad)} of {len(found)} are not what was made: "
            + ", ".join(f"{one.name} ({one.state})" for one in bad)
        )


def purge(
    run: Where,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove without asking for confirmation.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the text of the unlearn scope and the models that know it, and record the removal."""
    from knowundo.errors import BadInput
    from knowundo.progress import RichReporter
    from knowundo.runs.purge import holdings
    from knowundo.runs.purge import purge as remove

    names = holdings(run)
    if not yes:
        if not sys.stdin.isatty():
            raise BadInput(f"purge {run}: nobody to ask; add --yes")
        typer.echo(f"These go, for good: {', '.join(names) or 'nothing is left to go'}", err=True)
        typer.confirm("Remove them?", abort=True, err=True)
    done = remove(run, RichReporter())
    if as_json:
        print(json.dumps(done, indent=1))
        return
    for name, digest in done.items():
        print(f"purged {name}" + (f" (was {digest[:12]})" if digest else ""))
    print("files were removed, not wiped: copies, snapshots and a disk's free space may hold them")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(verify)
    app.command()(purge)
