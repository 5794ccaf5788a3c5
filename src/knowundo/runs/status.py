"""What a run's directory says of the work in it, while another process does that work."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knowundo.errors import BadInput
from knowundo.progress import NOTE, time_left
from knowundo.runs.directory import CHECKPOINTS
from knowundo.runs.recipe_file import RECIPE, read_recipe_file
from knowundo.storage.artifacts import KEPT_NAME, MANIFEST
from knowundo.storage.files import read_json
from knowundo.storage.locks import HOLDER


@dataclass(frozen=True)
class Status:
    """The state of a run's directory.

    Attributes:
        state: working; interrupted (a process ended before its work was done, or left a
            checkpoint); unfinished (stages are missing, and nobody works); finished.
        stages: Stage → how much of it is there, such as `3 of 13`.
        process: Process that works, or that ended early: pid, host, command, began. Empty if none.
        phase: What it does.
        done: Units of work of the phase.
        total: All of them. 0 if that is not known.
        left: Seconds until the phase is done. `None` if that is not known.
        losses: Parts of the loss at the newest checkpoint's last step.
        memory: The most bytes of main memory that the process has held.
        gpu_memory: The same of GPU memory.
    """

    state: str
    stages: dict[str, str]
    process: dict[str, Any] = field(default_factory=dict)
    phase: str | None = None
    done: int = 0
    total: int = 0
    left: float | None = None
    losses: dict[str, float] = field(default_factory=dict)
    memory: int = 0
    gpu_memory: int = 0


def status(out: Path) -> Status:
    """Read the state of a run; nothing is written, and no lock is taken.

    Raises:
        BadInput: The directory holds no run.
    """
    if not (out / RECIPE).is_file():
        raise BadInput(f"{out}: holds no run (no {RECIPE}); name a run's directory")
    stages, process = _stages(out), _note(out / HOLDER)
    working = bool(process) and _alive(process)
    note = _note(out / NOTE) if working else {}
    finished = (out / "report.html").is_file()
    broken = bool(process) or (out / CHECKPOINTS).is_dir()
    state = "interrupted" if broken else "finished" if finished else "unfinished"
    if not note:
        return Status("working" if working else state, stages, process, losses=_losses(out))
    done, total, first = (int(note.get(key) or 0) for key in ("done", "total", "first"))
    seconds = time.time() - float(note["began"])
    if str(note["phase"]).startswith("evaluate"):
        # What an earlier evaluation left is replaced now.
        stages |= {"evaluate": "at work", "report": "not done"}
    return Status(
        "working", stages, process, str(note["phase"]), done, total,
        time_left(done - first, total - first, seconds), _losses(out),
        int(note.get("memory") or 0), int(note.get("gpu_memory") or 0),
    )  # fmt: skip


def _note(file: Path) -> dict[str, Any]:
    """A note that another process replaces or removes at any time; empty if it is not there."""
    try:
        held = read_json(file)
    except BadInput:
        return {}
    return held if isinstance(held, dict) else {}


def _alive(process: Mapping[str, Any]) -> bool:
    """Whether the holder of a lock still runs; on another machine it is believed to."""
    if process.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(process["pid"]), 0)
    except (ProcessLookupError, KeyError, ValueError, TypeError, OverflowError):
        return False
    except PermissionError:  # it runs, under another user
        return True
    return True


def _stages(out: Path) -> dict[str, str]:
    """Each stage and how much of it is there."""
    effective = read_recipe_file(out / RECIPE)["effective"]
    planned = len(effective.get("unlearn", {}).get("variants", []))
    single = {"memorize": "memorized", "localize": "regions"}
    found = {
        stage: "done" if (out / name / MANIFEST).is_file() else "not done"
        for stage, name in single.items()
    }
    made = [
        f for f in out.glob(f"unlearned/*/{MANIFEST}") if not KEPT_NAME.fullmatch(f.parent.name)
    ]
    found["unlearn"] = f"{len(made)} of {planned}"
    scored = len([f for f in out.glob(f"scores/*/{MANIFEST}") if "@" not in f.parent.name])
    evaluated = "done" if (out / "results.json").is_file() else "not done"
    found["evaluate"] = f"{evaluated}, {scored} models scored"
    found["report"] = "done" if (out / "report.html").is_file() else "not done"
    return found


def _losses(out: Path) -> dict[str, float]:
    """Parts of the loss at the last step that the newest checkpoint holds."""
    files = [f for f in (out / CHECKPOINTS).rglob("*.json") if f.stem.isdigit()]
    dated = [(modified, file) for file in files if (modified := _modified(file)) is not None]
    for _, file in sorted(dated, reverse=True)[:1]:
        curve = _curve(_note(file))
        if curve:
            return {str(k): float(v) for k, v in curve[-1].get("parts", {}).items()}
    return {}


def _modified(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except OSError:  # the process that trains replaces it
        return None


def _curve(held: Any) -> list[dict[str, Any]]:
    """The training curve in a checkpoint's facts, however deep it lies."""
    if isinstance(held, list):
        parts = held
    elif isinstance(held, dict):
        own = held.get("curve")
        if isinstance(own, list) and own and isinstance(own[-1], dict):
            return own
        parts = list(held.values())
    else:
        return []
    return next((found for part in parts if (found := _curve(part))), [])
