"""How a long stage reports its progress and resumes after it was killed."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from knowundo.progress import Progress
from knowundo.storage.checkpoints import Checkpoint, State


@dataclass(frozen=True)
class Job:
    """What a stage needs beside its settings. Nothing in it changes a result.

    Attributes:
        progress: Called with (done, total) after each unit of work. If `None`, nobody is told.
        checkpoint: Resumed from if it holds a state, and written now and then. If `None`, work
            that is killed begins again.
    """

    progress: Progress | None = None
    checkpoint: Checkpoint | None = None

    def report(self, done: int, total: int) -> None:
        """Report progress, if anybody wants to know."""
        if self.progress is not None:
            self.progress(done, total)

    def resumed(self) -> State | None:
        """Return the newest state of the checkpoint, or `None` if there is none.

        Raises:
            BadInput: A file of the checkpoint is damaged.
        """
        return None if self.checkpoint is None else self.checkpoint.read()

    def seconds(self, began: float) -> float:
        """Return how long the work has taken, with a checkpoint also before it was resumed.

        Args:
            began: `time.perf_counter()` at its beginning in this process.
        """
        return self.checkpoint.seconds if self.checkpoint else time.perf_counter() - began

    def due(self) -> bool:
        """Return whether it is time to write a checkpoint."""
        return self.checkpoint is not None and self.checkpoint.due()

    def write(self, state: State) -> None:
        """Make a state the newest one of the checkpoint, if there is a checkpoint."""
        if self.checkpoint is not None:
            self.checkpoint.write(state.facts, state.tensors)

    def part(self, name: str, inputs: Any = None) -> Job:
        """Return the job of a part of the work, with a checkpoint of its own below this one."""
        checkpoint = self.checkpoint
        return replace(self, checkpoint=checkpoint and checkpoint.within(name, inputs))
