"""Commands that run the pipeline, whole or a stage of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knowundo.errors import plain

if TYPE_CHECKING:
    from knowundo.results import Results
    from knowundo.runs import Run

Config = Annotated[
    str | None,
    typer.Option("--config", help="A recipe file, or a preset (knowundo list presets)."),
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Overrides a key, such as unlearn.lr=1e-4.")
]
Out = Annotated[Path, typer.Option("--out", help="The run's directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]


Region = Annotated[
    str | None,
    typer.Option("--region", help="A JSON list of parameter names, instead of a search."),
]


def _with_region(sets: list[str] | None, region: str | None) -> list[str]:
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
    from knowundo.recipe import load_recipe
    from knowundo.runs import Run

    quiet()
    if config is None and (out / "recipe.yaml").is_file():
        return Run.existing(out, RichReporter(), sets or [])
    recipe, given = load_recipe(config, sets or [])
    return Run(recipe, out, given=given, reporter=RichReporter())


def show(run: Run, results: Results, as_json: bool) -> None:
    """Results on stdout: the table and what it says, or JSON."""
    if as_json:
        print(json.dumps(results.model_dump(mode="json"), indent=1))
        return
    from rich.console import Console

    from knowundo.reporting import findings, terminal_table

    console = Console(highlight=False)
    console.print(terminal_table(results))
    for sentence in findings(results):
        console.print(plain(f"• {sentence}"), markup=False)
    report = run.out / "report.html"
    if report.exists():
        console.print(f"report: {report}", markup=False, soft_wrap=True)


def _say(value: dict[str, Any], as_json: bool) -> None:
    print(json.dumps(value) if as_json else "\n".join(plain(f"{k}: {v}") for k, v in value.items()))


Restart = Annotated[
    str | None,
    typer.Option("--restart", help="Do this stage and all later ones again, such as unlearn."),
]


Redact = Annotated[
    bool,
    typer.Option("--redact", help="Keep what is said of the unlearn scope out of the report."),
]


def _run(
    config: str | None,
    sets: list[str] | None,
    out: Path,
    as_json: bool,
    again: str | None,
    redact: bool,
) -> None:
    from knowundo.errors import MethodsFailed
    from knowundo.pipeline import restart, run_all
    from knowundo.results import read_results

    run = open_run(config, sets, out)
    if again is not None:
        run.reporter.say(f"removed: {', '.join(restart(run, again)) or 'nothing was there'}")
    try:
        results = run_all(run, redact=redact)
    except MethodsFailed:
        show(run, read_results(run.out / "results.json"), as_json)
        raise
    show(run, results, as_json)


def demo(
    sets: Sets = None,
    out: Out = Path("runs/demo"),
    restart: Restart = None,
    redact: Redact = False,
    as_json: AsJson = False,
) -> None:
    """The main job on the embedded base and benchmark: `run --config demo`."""
    _run("demo", sets, out, as_json, restart, redact)


def run(
    config: Config = None,
    sets: Sets = None,
    out: Out = Path("runs/run"),
    region: Region = None,
    restart: Restart = None,
    redact: Redact = False,
    as_json: AsJson = False,
) -> None:
    """All stages: memorize, localize, unlearn, evaluate, report. Run it again to continue."""
    _run(config, _with_region(sets, region), out, as_json, restart, redact)


def memorize(
    config: Config = None, sets: Sets = None, out: Out = Path("runs/run"), as_json: AsJson = False
) -> None:
    """Finetune the base until it knows the records."""
    from knowundo.artifacts import read_manifest
    from knowundo.pipeline import memorize as stage

    opened = open_run(config, sets, out)
    stage(opened)
    facts = read_manifest(opened.memorized)
    keys = ("known_share", "optimizer_steps", "seconds")
    _say({"artifact": str(opened.memorized)} | {key: facts[key] for key in keys}, as_json)


def localize(
    config: Config = None,
    sets: Sets = None,
    out: Out = Path("runs/run"),
    region: Region = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", help="Only print how two region files overlap."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the region that holds the unlearn scope, and its random controls."""
    from knowundo.artifacts import read_manifest
    from knowundo.pipeline import localize as stage

    if compare is not None:
        _show_overlap(*compare, as_json)
        return
    sets = _with_region(sets, region)
    opened = open_run(config, sets, out)
    stage(opened)
    facts = read_manifest(opened.regions)
    _say({"artifact": str(opened.regions), "parameters": facts["parameters"]}, as_json)


def _show_overlap(first: Path, second: Path, as_json: bool) -> None:
    from knowundo.regions import overlap, read_names

    found = overlap(read_names(first), read_names(second))
    if as_json:
        print(json.dumps(found))
        return
    for kind, groups in found.items():
        for group, index in groups.items():
            print(f"{kind if kind == 'all' else f'{kind} {group}'}: {index:.3f}")


def unlearn(
    config: Config = None,
    sets: Sets = None,
    out: Out = Path("runs/run"),
    region: Region = None,
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help="Only this one; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train the variants of the recipe from the memorized model."""
    from knowundo.errors import MethodsFailed
    from knowundo.pipeline import localize as find
    from knowundo.pipeline import unlearn as stage

    sets = _with_region(sets, region)
    opened = open_run(config, sets, out)
    if region is not None:
        find(opened)  # nothing is searched: the region is there
    failed = stage(opened, variant)
    made, outdated = opened.made_variants()
    for name in outdated:
        opened.reporter.say(
            f"{name}: made of other inputs than are there now, such as another region; "
            f"`knowundo unlearn --variant {name}` makes it again, and `evaluate` waits for that"
        )
    _say({"artifacts": [str(v.folder) for v in made], "diverged": failed}, as_json)
    if failed:
        raise MethodsFailed(f"diverged: {', '.join(failed)}")


def evaluate(
    models: Annotated[
        list[str] | None, typer.Argument(help="Folders of adapters, or of whole models.")
    ] = None,
    config: Config = None,
    sets: Sets = None,
    out: Out = Path("runs/run"),
    base: Annotated[str | None, typer.Option("--base", help="The base of the adapters.")] = None,
    adapters: Annotated[
        list[str] | None, typer.Option("--adapters", help="One or more folders of adapters.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score every model of a run, or any adapters of one base, and write results.json.

    knowundo evaluate --base B --adapters a b c --set data.domain=privacy --out DIR
    """
    from knowundo.pipeline import evaluate as stage

    given = [*(adapters or []), *(models or [])]
    sets = list(sets or [])
    if base is not None:
        sets.append(f"model.base={json.dumps(base)}")
    if given:
        sets.append(f"evaluate.models={json.dumps(given)}")
    opened = open_run(config, sets, out)
    show(opened, stage(opened), as_json)


class Style(StrEnum):
    """What a report is."""

    html = "html"
    paper = "paper"


class TableFormat(StrEnum):
    """What the paper's table is printed in."""

    markdown = "markdown"
    latex = "latex"
    csv = "csv"


def report(
    config: Config = None,
    sets: Sets = None,
    out: Out = Path("runs/run"),
    style: Annotated[
        Style,
        typer.Option(
            "--style",
            help="report.html, or the KnowUnDo paper's table: paper-table.md, .tex, .csv.",
        ),
    ] = Style.html,
    table_format: Annotated[
        TableFormat | None,
        typer.Option("--format", help="Which paper table is printed; markdown if none is named."),
    ] = None,
    redact: Redact = False,
    as_json: AsJson = False,
) -> None:
    """Write a report from what is there."""
    from knowundo.artifacts import read_text
    from knowundo.errors import BadInput
    from knowundo.pipeline import paper_report
    from knowundo.pipeline import report as stage

    if style is Style.html:
        if table_format:
            raise BadInput("--format: report.html has one only; add --style paper")
        _say({"report": str(stage(open_run(config, sets, out), redact=redact))}, as_json)
        return
    written = paper_report(open_run(config, sets, out))
    if as_json:
        _say({form: str(path) for form, path in written.items()}, as_json)
    else:
        print(read_text(written[table_format or TableFormat.markdown]), end="")


def add_to(app: typer.Typer) -> None:
    """Register the commands, in the order of the pipeline."""
    commands: tuple[Callable[..., None], ...] = (
        demo, run, memorize, localize, unlearn, evaluate, report,
    )  # fmt: skip
    for command in commands:
        app.command()(command)
