"""`knowundo study`: one recipe at every point of a grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from knowundo.cli.options import AsJson, Sets
from knowundo.errors import BadInput, KnowUndoError, plain, unknown

if TYPE_CHECKING:
    from knowundo.studies.summary import StudyResults


def study(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a preset.")],
    grid: Annotated[
        list[str],
        typer.Option("--grid", help="Values of a key, such as 'seed=[0, 1, 2]'. Repeatable."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Directory of the study.")] = Path(
        "runs/study"
    ),
    sets: Sets = None,
    engine: Annotated[
        str, typer.Option("--engine", help="Of the runs: local, ray, slurm.")
    ] = "local",
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Local: runs at a time.")] = 1,
    cpus: Annotated[
        int | None,
        typer.Option("--cpus", min=1, help="Cores of a run. If omitted, all, shared by --jobs."),
    ] = None,
    gpus: Annotated[float, typer.Option("--gpus", min=0, help="GPUs of a run.")] = 0,
    retries: Annotated[
        int, typer.Option("--retries", min=0, help="How often a run that died begins again.")
    ] = 1,
    hours: Annotated[
        float, typer.Option("--hours", min=0.1, help="SLURM: time limit of a run.")
    ] = 24,
    partition: Annotated[
        str | None, typer.Option("--partition", help="SLURM: partition of the jobs.")
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", help="Ray: address of a cluster, as HOST:PORT.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe at every point of a grid, and print one table with intervals over seeds.

    The same call resumes: what is finished is skipped. Exit code 1: some runs have no results.
    """
    from knowundo.modeling.hardware import automatic_threads
    from knowundo.progress import RichReporter
    from knowundo.studies.grid import points_of
    from knowundo.studies.study import ENGINES, Study, run_study
    from knowundo.studies.tasks import Resources

    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if engine != "local" and jobs > 1:
        raise BadInput(f"--jobs {jobs}: --engine {engine} takes as many as fit; leave it out")
    # A file keeps its meaning wherever an engine starts the run.
    config = str(Path(recipe).resolve()) if Path(recipe).is_file() else recipe
    points = points_of(config, sets or [], grid)
    cores = cpus or max(1, automatic_threads() // jobs)
    resources = Resources(jobs, cores, gpus, hours, partition, address)
    asked = Study(config, sets or [], points, out, retries)
    found = run_study(asked, engine, resources, RichReporter())
    if as_json:
        print(json.dumps(found.model_dump(mode="json"), indent=1))
    else:
        _show(found, out)
    if found.unfinished:
        failed = found.unfinished[0]
        raise KnowUndoError(
            f"{len(found.unfinished)} of {len(found.runs)} runs have no results, first "
            f"{failed.name} ({plain(failed.said) or failed.state}); see {out}/runs/*.study.log"
        )


def _show(found: StudyResults, out: Path) -> None:
    from rich.console import Console

    from knowundo.studies.summary import markdown

    console = Console(highlight=False)
    console.print(markdown(found), markup=False, soft_wrap=True, end="")
    console.print(f"tables: {out / 'study.md'}, {out / 'study.json'}", markup=False, soft_wrap=True)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(study)
