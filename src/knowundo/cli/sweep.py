"""`knowundo sweep`: search a variant's learning rate, loss weights and region size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from knowundo.cli.options import AsJson, Config, Out, Sets, open_run

if TYPE_CHECKING:
    from rich.table import Table

    from knowundo.sweeps.results import SweepResult


def _table(found: SweepResult) -> Table:
    """The front, and the trial of the highest score, which is starred."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"{found.variant}: no trial forgot more and lost less",
        caption="forgotten: percent of the way to not knowing; lost: points of retention accuracy; "
        "both at the best evaluation step of a trial, on train rows. *: highest score.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    columns = ("trial", *found.space, "parameters", "forgotten", "lost", "score")
    for column in columns:
        table.add_column(column, justify="right")
    for number in dict.fromkeys([*found.front, *([] if found.best is None else [found.best])]):
        trial = found.trial(number)
        table.add_row(
            f"{number}{' *' if number == found.best else ''}",
            *(f"{trial.params[name]:.3g}" for name in found.space),
            f"{trial.parameters:,}",
            f"{100 * (trial.forgotten or 0.0):.1f}",
            f"{trial.lost:.1f}",
            f"{trial.score:.3f}",
        )
    return table


def _show(found: SweepResult, folder: Path) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    states = [trial.state for trial in found.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    if found.recipe is None:
        console.print(f"no trial is complete ({counts or 'none began'}); run it again, or narrow "
                      "the space with --space")  # fmt: skip
        return
    console.print(_table(found))
    console.print(f"trials: {counts}", soft_wrap=True)
    console.print(f"report: {folder / found.variant}.html", markup=False, soft_wrap=True)
    console.print(f"\n{found.recipe}", markup=False, soft_wrap=True, end="")


def sweep(
    config: Config = None,
    sets: Sets = None,
    out: Out = Path("runs/run"),
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant",
            help="Variant to search. It can be omitted if the recipe has only one.",
        ),
    ] = None,
    trials: Annotated[
        int,
        typer.Option(
            "--trials",
            min=1,
            help="Total number of trials, including those of earlier calls.",
        ),
    ] = 20,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            min=0,
            help="Seconds after which no further trial is started. If omitted, there is no limit.",
        ),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(
            "--space",
            help="YAML file with ranges, such as {lr: [1e-5, 1e-3]}. If omitted, ranges are "
            "derived from the recipe.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search the learning rate, loss weights and region size of one variant.

    An interrupted sweep is resumed by the same command.
    """
    from dataclasses import asdict

    from knowundo.sweeps.space import read_ranges
    from knowundo.sweeps.study import need_optuna
    from knowundo.sweeps.sweep import sweep as search

    need_optuna()
    ranges = None if space is None else read_ranges(space)
    opened = open_run(config, sets, out)
    found = search(opened, variant, trials=trials, timeout=timeout, ranges=ranges)
    if as_json:
        print(json.dumps(asdict(found), indent=1))
    else:
        _show(found, opened.out / "sweep")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(sweep)
