"""Options that commands share, and what runs around each command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knowundo.errors import plain

if TYPE_CHECKING:
    from knowundo.results import Results
    from knowundo.runs.run import Run


Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="Recipe file, or the name of a preset (see `knowundo list presets`). If omitted, the "
        "recipe of the run in --out is used, or else the defaults.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Override a key of the recipe, such as unlearn.lr=1e-4. It can be repeated.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Directory of the run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]


Region = Annotated[
    str | None,
    typer.Option(
        "--region",
        help="JSON file with a list of parameter names. If omitted, the localizer finds the "
        "region.",
    ),
]


def with_region(sets: list[str] | None, region: str | None) -> list[str]:
    """The overridden keys, with `localize.adopt` if a region's file is given."""
    given = list(sets or [])
    return given if region is None else [*given, f"localize.adopt={json.dumps(region)}"]


# Libraries that tell their own callers, which this package is, what will change in them.
_LIBRARIES = "transformers|peft|accelerate|huggingface_hub|bitsandbytes|torch"


def quiet() -> None:
    """Keep off the terminal what libraries say to programmers, and bars other than this package's.

    Errors of theirs, warnings of any other kind and all warnings of this package are still shown.
    """
    import warnings

    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    for kind in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=kind, module=rf"({_LIBRARIES})(\.|$)")


def open_run(config: str | None, sets: list[str] | None, out: Path) -> Run:
    """The run of a recipe; without one, the run that the directory holds."""
    from knowundo.progress import RichReporter
    from knowundo.recipes.reading import load_recipe
    from knowundo.runs.run import Run

    quiet()
    if config is None and (out / "recipe.yaml").is_file():
        return Run.existing(out, RichReporter(out), sets or [])
    recipe, given = load_recipe(config, sets or [])
    return Run(recipe, out, given=given, reporter=RichReporter(out))


def show(run: Run, results: Results, as_json: bool) -> None:
    """Results on stdout: the table and what it says, or JSON."""
    if as_json:
        print(json.dumps(results.model_dump(mode="json"), indent=1))
        return
    from rich.console import Console

    from knowundo.reporting.sentences import findings
    from knowundo.reporting.tables import terminal_table

    console = Console(highlight=False)
    console.print(terminal_table(results))
    for sentence in findings(results):
        console.print(plain(f"• {sentence}"), markup=False)
    report = run.out / "report.html"
    if report.exists():
        console.print(f"report: {report}", markup=False, soft_wrap=True)


def print_line(value: dict[str, Any], as_json: bool) -> None:
    """Print keys and values, one a line, or all as one line of JSON."""
    print(json.dumps(value) if as_json else "\n".join(plain(f"{k}: {v}") for k, v in value.items()))


Restart = Annotated[
    str | None,
    typer.Option(
        "--restart",
        help="First stage to run again, such as unlearn. Its results and those of all later stages "
        "are removed first. If omitted, finished stages are skipped.",
    ),
]


Redact = Annotated[
    bool,
    typer.Option(
        "--redact", help="Leave questions and answers of the unlearn scope out of the report."
    ),
]
