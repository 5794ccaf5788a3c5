"""`knowundo status`: how far a run is, from another shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from knowundo.cli.options import AsJson
from knowundo.errors import plain

if TYPE_CHECKING:
    from knowundo.runs.status import Status


def status(
    run: Annotated[Path, typer.Argument(help="Directory of a run, at work or not.")],
    as_json: AsJson = False,
) -> None:
    """Print how far a run is: stages, phase, time left, losses, memory.

    The run may be at work in another process, which is not disturbed. On a cluster, name the
    directory on the shared disk.
    """
    from dataclasses import asdict

    from knowundo.runs.status import status as read

    found = read(run)
    if as_json:
        print(json.dumps(asdict(found), indent=1))
        return
    for line in _lines(found):
        print(plain(line))


def _lines(found: Status) -> list[str]:
    from knowundo.progress import clock, size

    process = found.process
    who = f" (process {process.get('pid')} on {process.get('host')}, {process.get('command')}, " \
          f"since {process.get('began')})" if process else ""  # fmt: skip
    lines = [f"state: {found.state}{who}"]
    lines += [f"{stage}: {much}" for stage, much in found.stages.items()]
    if found.phase is not None:
        share = f", {100 * found.done / found.total:.0f} %" if found.total else ""
        lines.append(f"phase: {found.phase}, {found.done} of {found.total}{share}")
        lines.append(f"time left in this phase: {clock(found.left)}")
    if found.losses:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in found.losses.items())
        lines.append(f"losses at the last checkpoint: {shown}")
    if found.memory:
        gpu = f", {size(found.gpu_memory)} on the GPU" if found.gpu_memory else ""
        lines.append(f"memory, at most: {size(found.memory)}{gpu}")
    return lines


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(status)
