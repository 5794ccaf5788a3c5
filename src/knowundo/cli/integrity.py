"""Commands that verify the artifacts of a run, and that remove what must not be kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from knowundo.cli.options import AsJson

Where = Annotated[Path, typer.Argument(help="Directory of the run.")]


def verify(run: Where, as_json: AsJson = False) -> None:
    """Check the hash of every artifact. The exit code is 2 if one differs from its seal."""
    from knowundo.errors import BadInput, plain
    from knowundo.storage.integrity import verify as check

    found = check(run)
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
