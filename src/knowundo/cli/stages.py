"""Commands that run the pipeline, whole or a stage of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from knowundo.cli.options import (
    AsJson,
    Config,
    Out,
    Redact,
    Region,
    Restart,
    Sets,
    open_run,
    print_line,
    show,
    with_region,
)


def _run(
    config: str | None,
    sets: list[str] | None,
    out: Path,
    as_json: bool,
    again: str | None,
    redact: bool,
) -> None:
    from knowundo.errors import MethodsFailed
    from knowundo.pipeline.whole import restart, run_all
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
    """Run all stages on the embedded base model and benchmark, as `run --config demo` does."""
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
    """Run all stages: memorize, localize, unlearn, evaluate, report.

    An interrupted run is resumed by the same command.
    """
    _run(config, with_region(sets, region), out, as_json, restart, redact)


def memorize(
    config: Config = None, sets: Sets = None, out: Out = Path("runs/run"), as_json: AsJson = False
) -> None:
    """Finetune the base model until it knows the records."""
    from knowundo.pipeline.memorization import memorize as stage
    from knowundo.storage.artifacts import read_manifest

    opened = open_run(config, sets, out)
    stage(opened)
    facts = read_manifest(opened.memorized)
    keys = ("known_share", "optimizer_steps", "seconds")
    print_line({"artifact": str(opened.memorized)} | {key: facts[key] for key in keys}, as_json)


def localize(
    config: Config = None,
    sets: Sets = None,
    out: Out = Path("runs/run"),
    region: Region = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            help="Two region files. If given, only their overlap is printed.",
        ),
    ] = None,
    score: Annotated[
        bool,
        typer.Option(
            "--score",
            help="Score every localizer on models whose scopes were planted in known tensors, and "
            "write planted.json into --out. Takes minutes; no run is needed.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find the region that holds the unlearn scope, and its random controls."""
    from knowundo.pipeline.localization import localize as stage
    from knowundo.storage.artifacts import read_manifest

    if compare is not None:
        _show_overlap(*compare, as_json)
        return
    if score:
        _score_localizers(out, as_json, refused=[config, region, *(sets or [])])
        return
    sets = with_region(sets, region)
    opened = open_run(config, sets, out)
    stage(opened)
    facts = read_manifest(opened.regions)
    print_line({"artifact": str(opened.regions), "parameters": facts["parameters"]}, as_json)


def _show_overlap(first: Path, second: Path, as_json: bool) -> None:
    from knowundo.modeling.regions import overlap, read_names

    found = overlap(read_names(first), read_names(second))
    if as_json:
        print(json.dumps(found))
        return
    for kind, groups in found.items():
        for group, index in groups.items():
            print(f"{kind if kind == 'all' else f'{kind} {group}'}: {index:.3f}")


def _score_localizers(out: Path, as_json: bool, refused: list[str | None]) -> None:
    from knowundo.cli.options import quiet
    from knowundo.errors import BadInput
    from knowundo.planting.study import score_localizers
    from knowundo.planting.table import tables
    from knowundo.progress import RichReporter

    if any(option is not None for option in refused):
        raise BadInput("--score: plants models of its own; leave out --config, --set and --region")
    quiet()
    result = score_localizers(out, reporter=RichReporter())
    if as_json:
        print(json.dumps(result, indent=1))
        return
    from rich.console import Console

    for table in tables(result):
        Console(highlight=False).print(table)


def unlearn(
    config: Config = None,
    sets: Sets = None,
    out: Out = Path("runs/run"),
    region: Region = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            help="Variant to train. It can be repeated. If omitted, all variants are trained.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train the unlearning variants of the recipe, each from the memorized model."""
    from knowundo.errors import MethodsFailed
    from knowundo.pipeline.localization import localize as find
    from knowundo.pipeline.unlearning import unlearn as stage

    sets = with_region(sets, region)
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
    print_line({"artifacts": [str(v.made) for v in made], "diverged": failed}, as_json)
    if failed:
        raise MethodsFailed(f"diverged: {', '.join(failed)}")


def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of adapters, or of full models. If omitted, the models of the run are "
            "scored.",
        ),
    ] = None,
    config: Config = None,
    sets: Sets = None,
    out: Out = Path("runs/run"),
    base: Annotated[
        str | None,
        typer.Option(
            "--base", help="Base model of the adapters. If omitted, it is model.base of the recipe."
        ),
    ] = None,
    adapters: Annotated[
        list[str] | None,
        typer.Option("--adapters", help="Folder of an adapter. It can be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score every model of a run, or any adapters of one base, and write results.json.

    knowundo evaluate --base B --adapters a b c --set data.domain=privacy --out DIR
    """
    from knowundo.pipeline.evaluation import evaluate as stage

    given = [*(adapters or []), *(models or [])]
    sets = list(sets or [])
    if base is not None:
        sets.append(f"model.base={json.dumps(base)}")
    if given:
        sets.append(f"evaluate.models={json.dumps(given)}")
    opened = open_run(config, sets, out)
    show(opened, stage(opened), as_json)


def add_to(app: typer.Typer) -> None:
    """Register the commands, in the order of the pipeline."""
    commands: tuple[Callable[..., None], ...] = (
        demo, run, memorize, localize, unlearn, evaluate,
    )  # fmt: skip
    for command in commands:
        app.command()(command)
