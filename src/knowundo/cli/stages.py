"""Commands that run the pipeline, whole or a stage of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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


def _open(config: str | None, sets: list[str] | None, out: Path) -> Run:
    """The run of a recipe; without one, the run that the directory holds."""
    import warnings

    from transformers.utils import logging

    from knowundo.progress import RichReporter
    from knowundo.recipe import load_recipe
    from knowundo.runs import Run

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    if config is None and not sets and (out / "recipe.yaml").is_file():
        return Run.existing(out, RichReporter())
    recipe, given = load_recipe(config, sets or [])
    return Run(recipe, out, given=given, reporter=RichReporter())


def _show(run: Run, results: Results, as_json: bool) -> None:
    """Results on stdout: the table and what it says, or JSON."""
    if as_json:
        print(json.dumps(results.model_dump(mode="json"), indent=1))
        return
    from rich.console import Console

    from knowundo.reporting import findings, terminal_table

    console = Console(highlight=False)
    console.print(terminal_table(results))
    for sentence in findings(results):
        console.print(f"• {sentence}", markup=False)
    report = run.out / "report.html"
    if report.exists():
        console.print(f"report: {report}", markup=False, soft_wrap=True)


def _say(value: dict[str, Any], as_json: bool) -> None:
    print(json.dumps(value) if as_json else "\n".join(f"{k}: {v}" for k, v in value.items()))


def _run(config: str | None, sets: list[str] | None, out: Path, as_json: bool) -> None:
    from knowundo.errors import MethodsFailed
    from knowundo.pipeline import run_all
    from knowundo.results import read_results

    run = _open(config, sets, out)
    try:
        results = run_all(run)
    except MethodsFailed:
        _show(run, read_results(run.out / "results.json"), as_json)
        raise
    _show(run, results, as_json)


def demo(sets: Sets = None, out: Out = Path("runs/demo"), as_json: AsJson = False) -> None:
    """The main job on the embedded base and benchmark: `run --config demo`."""
    _run("demo", sets, out, as_json)


def run(
    config: Config = None, sets: Sets = None, out: Out = Path("runs/run"), as_json: AsJson = False
) -> None:
    """All stages: memorize, localize, unlearn, evaluate, report. Run it again to continue."""
    _run(config, sets, out, as_json)


def memorize(
    config: Config = None, sets: Sets = None, out: Out = Path("runs/run"), as_json: AsJson = False
) -> None:
    """Finetune the base until it knows the records."""
    from knowundo.artifacts import read_manifest
    from knowundo.pipeline import memorize as stage

    opened = _open(config, sets, out)
    stage(opened)
    facts = read_manifest(opened.memorized)
    keys = ("known_share", "optimizer_steps", "seconds")
    _say({"artifact": str(opened.memorized)} | {key: facts[key] for key in keys}, as_json)


def localize(
    config: Config = None, sets: Sets = None, out: Out = Path("runs/run"), as_json: AsJson = False
) -> None:
    """Find the region that holds the unlearn scope, and its random controls."""
    from knowundo.artifacts import read_manifest
    from knowundo.pipeline import localize as stage

    opened = _open(config, sets, out)
    stage(opened)
    facts = read_manifest(opened.regions)
    _say({"artifact": str(opened.regions), "parameters": facts["parameters"]}, as_json)


def unlearn(
    config: Config = None,
    sets: Sets = None,
    out: Out = Path("runs/run"),
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help="Only this one; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train the variants of the recipe from the memorized model."""
    from knowundo.errors import MethodsFailed
    from knowundo.pipeline import unlearn as stage

    opened = _open(config, sets, out)
    failed = stage(opened, variant)
    made = [str(v.folder) for v in opened.variants() if v.role == "unlearned"]
    _say({"artifacts": made, "diverged": failed}, as_json)
    if failed:
        raise MethodsFailed(f"diverged: {', '.join(failed)}")


def evaluate(
    config: Config = None, sets: Sets = None, out: Out = Path("runs/run"), as_json: AsJson = False
) -> None:
    """Score every model of the run and write results.json."""
    from knowundo.pipeline import evaluate as stage

    opened = _open(config, sets, out)
    _show(opened, stage(opened), as_json)


def report(
    config: Config = None, sets: Sets = None, out: Out = Path("runs/run"), as_json: AsJson = False
) -> None:
    """Write report.html from what is there."""
    from knowundo.pipeline import report as stage

    opened = _open(config, sets, out)
    _say({"report": str(stage(opened))}, as_json)


def add_to(app: typer.Typer) -> None:
    """Register the commands, in the order of the pipeline."""
    commands: tuple[Callable[..., None], ...] = (
        demo, run, memorize, localize, unlearn, evaluate, report,
    )  # fmt: skip
    for command in commands:
        app.command()(command)
