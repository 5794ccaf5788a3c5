"""The command line. Heavy imports stand inside commands, so that --help needs no torch."""

from __future__ import annotations

import logging
import os
import sys

import typer

from knowundo.cli import (
    attack,
    certify,
    compare,
    data,
    doctor,
    erase,
    estimate,
    export,
    integrity,
    listing,
    report,
    stages,
    status,
    study,
    sweep,
)
from knowundo.cli.examples import add_examples
from knowundo.distributed.group import join, leave
from knowundo.errors import KnowUndoError, plain
from knowundo.version import __version__

app = typer.Typer(
    name="knowundo",
    help="Remove knowledge from a language model, and show that it is gone while the rest stays.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        print(f"knowundo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


stages.add_to(app)
report.add_to(app)
status.add_to(app)
study.add_to(app)
attack.add_to(app)
erase.add_to(app)
compare.add_to(app)
listing.add_to(app)
estimate.add_to(app)
export.add_to(app)
certify.add_to(app)
sweep.add_to(app)
integrity.add_to(app)
doctor.add_to(app)
app.add_typer(data.app, name="data")
add_examples(app)
add_examples(data.app, "data ")


def main() -> None:
    """Entry point: a known error is one line on stderr and an exit code, never a traceback."""
    # Where it is installed, peft imports it, and it warns of kernels that nobody asked for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    said = sys.stderr
    try:
        if not join().main:  # results and progress are those of the main process
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        app()
    except SystemExit as ended:
        if not ended.code:
            leave()
        raise
    except KnowUndoError as error:
        if not getattr(error, "told", False):
            print(f"error: {error}", file=said)
        sys.exit(error.exit_code)
    except OSError as error:  # a name too long, a folder that may not be read
        where = "" if error.filename is None else f"{error.filename}: "
        print(plain(f"error: {where}{error.strerror or error}"), file=said)
        sys.exit(KnowUndoError.exit_code)
    finally:
        sys.stderr = said  # a traceback of any process is shown
