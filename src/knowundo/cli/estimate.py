"""`knowundo estimate`: what a recipe takes, before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from knowundo.cli.options import AsJson, Config, Sets, quiet

if TYPE_CHECKING:
    from rich.table import Table

    from knowundo.estimation.schema import Estimate, StageEstimate


# A narrower terminal folds the lines; a pipe gets them whole.
WIDTH = 130


def _mib(size: int) -> str:
    from knowundo.estimation.memory_trace import MIB

    return f"{size / MIB:,.1f}" if size < 100 * MIB else f"{size / MIB:,.0f}"


def _row(stage: StageEstimate, kinds: tuple[str, ...]) -> list[str]:
    length = f"{'≤ ' if stage.at_most else ''}{stage.count:,} {stage.unit}"
    batch = f"{stage.rows} × {stage.tokens // stage.rows}"
    if stage.peak is None:
        return [stage.name, length, batch, *("" for _ in kinds), "unknown"]
    sizes = [_mib(stage.memory[kind]) for kind in kinds]
    return [stage.name, length, batch, *sizes, _mib(stage.peak)]


def _table(found: Estimate) -> Table:
    from rich import box
    from rich.table import Table

    from knowundo.estimation.memory_trace import KINDS

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("stage", "length"):
        table.add_column(column, no_wrap=True)
    for column in ("batch", *KINDS, "peak MiB"):
        table.add_column(column, justify="right", no_wrap=True)
    for stage in found.stages:
        table.add_row(*_row(stage, KINDS))
    return table


def _sentences(found: Estimate) -> list[str]:
    from knowundo.estimation.memory_trace import GIB
    from knowundo.estimation.schema import CUDA_RESERVE, GPU_MEMORY

    highest = (found.highest.peak or 0) / GIB
    on_cpu = found.device == "cpu"
    host = "" if on_cpu else ", in the host's memory"
    glibc = "; glibc can keep as much again, unless MALLOC_MMAP_THRESHOLD_=65536 is set"
    verdict = "yes" if found.fits else "no"
    lines = [
        f"fits into {GPU_MEMORY // GIB} GiB: {verdict}; the peak is {highest:.2f} GiB, in "
        f"{found.highest.name}, and {CUDA_RESERVE // GIB} GiB is left to CUDA itself",
        "each column holds the most of its kind, in MiB; peak is the most at one time",
        f"copies: weights to go back to{host}",
        "not counted: the interpreter with its libraries, and freed memory that an allocator keeps"
        + (glibc if on_cpu else ""),
    ]
    if any(stage.peak is None for stage in found.stages):
        lines.append("unknown: a loss that reads tensor values can only be measured as it runs")
    return lines + found.notes


def _as_dict(found: Estimate) -> dict[str, Any]:
    return asdict(found) | {"peak": found.highest.peak, "fits_24_gib": found.fits}


def estimate(config: Config = None, sets: Sets = None, as_json: AsJson = False) -> None:
    """Estimate the parameters, steps and memory of a recipe.

    Only the config and the tokenizer of the base model are read.
    """
    from rich.console import Console

    from knowundo.estimation.estimate import estimate as find
    from knowundo.progress import RichReporter
    from knowundo.recipes.reading import load_recipe

    quiet()
    recipe, _ = load_recipe(config, sets or [])
    estimates = find(recipe, RichReporter())
    if as_json:
        print(json.dumps([_as_dict(found) for found in estimates], indent=1))
        return
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    for found in estimates:
        share = found.trainable / found.parameters
        console.print(
            f"{found.base}, {found.adaptation}, {found.dtype}: {found.parameters:,} parameters, "
            f"{found.trainable:,} trainable ({share:.2%})",
            markup=False,
            soft_wrap=True,
        )
        console.print(_table(found))
        for sentence in _sentences(found):
            console.print(f"• {sentence}", markup=False, soft_wrap=True)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(estimate)
