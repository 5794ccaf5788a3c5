"""One run of a study as a command of its own, wherever an engine starts it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from knowundo.modeling.hardware import THREADS

# Exit codes of `knowundo run` after which all there is to score is scored: 3 says that methods
# diverged. 2 says that the input is wrong, so that another try would end as this one did.
FINISHED, HOPELESS = (0, 3), (2,)
LOG = "study.log"


@dataclass(frozen=True)
class Task:
    """One run.

    Attributes:
        name: Of the point.
        folder: Directory of the run.
        command: Words of `knowundo run`, after the interpreter.
        threads: Of torch. The same for all engines: the same bits need the same number.
        retries: How often it is begun again after it was killed or failed for want of memory.
    """

    name: str
    folder: Path
    command: tuple[str, ...]
    threads: int
    retries: int


@dataclass(frozen=True)
class Resources:
    """What a run needs.

    Attributes:
        jobs: Runs at a time, for the local engine.
        cpus: Cores of each, which are its threads.
        gpus: GPUs of each.
        hours: Of SLURM, the time limit of each.
        partition: Of SLURM. If `None`, its default.
        address: Of a Ray cluster. If `None`, the one that runs here, or else a new one.
    """

    jobs: int = 1
    cpus: int = 1
    gpus: float = 0
    hours: float = 24
    partition: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a task ended: its exit code, and the last line that it said."""

    name: str
    code: int
    said: str

    @property
    def finished(self) -> bool:
        """True if its results are there."""
        return self.code in FINISHED


class Engine(Protocol):
    """Runs tasks, and tells of each as it ends."""

    def __call__(
        self, tasks: Sequence[Task], resources: Resources, say: Callable[[str], None]
    ) -> Iterator[Outcome]:
        """Run all tasks; in what order they end does not matter."""


def run_task(task: Task) -> Outcome:
    """Run a task in a process of its own, which ends when this one dies; what it says is logged."""
    outcome = Outcome(task.name, 1, "not begun")
    for _ in range(task.retries + 1):
        outcome = _once(task)
        if outcome.finished or outcome.code in HOPELESS:
            break
    return outcome


def _once(task: Task) -> Outcome:
    log = task.folder.parent / f"{task.folder.name}.{LOG}"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {THREADS: str(task.threads)}
    # Of several tasks on one machine none may take the cores of another while it waits.
    environment |= {"OMP_NUM_THREADS": str(task.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    with log.open("ab") as handle:
        done = subprocess.run(
            [sys.executable, *task.command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=handle,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return Outcome(task.name, done.returncode, lines[-1] if lines else "")


def _die_with_parent() -> None:
    """Ask Linux to kill this process with its parent: a dead node's run would hold its lock."""
    set_death_signal = 1
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
