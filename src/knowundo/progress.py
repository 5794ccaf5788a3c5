"""Messages and progress of a long job, on stderr; stdout is for results.

A run's reporter also keeps a note of what it does in the run's directory, for `knowundo status`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from knowundo.errors import plain

# `progress(done, total)`.
Progress = Callable[[int, int], None]

# In a run's directory while a process works there: phase, done, total, when each began, memory.
NOTE = ".progress.json"
# Seconds between two notes, and between two lines where there is no terminal.
_NOTE_EVERY, _LINE_EVERY = 1.0, 30.0


class Reporter:
    """Reports nothing; the default of the library."""

    def say(self, text: str) -> None:
        """Report one line about something that happened."""

    @contextmanager
    def task(self, title: str) -> Iterator[Progress]:
        """A progress bar while the block runs; yields a function `(done, total)`."""
        yield lambda done, total: None


class RichReporter(Reporter):
    """Bars on a terminal, plain lines elsewhere, both on stderr."""

    def __init__(self, out: Path | None = None) -> None:
        """Write nothing yet.

        Args:
            out: A run's directory, which gets a note of the progress while a process works there.
                If `None`, there is none.
        """
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        self._out = out

    def say(self, text: str) -> None:
        """Print one line; what a terminal would obey is escaped."""
        self.console.print(plain(text), markup=False, soft_wrap=True)

    @contextmanager
    def task(self, title: str) -> Iterator[Progress]:
        """Show progress while the block runs: done, time so far, time left, memory."""
        note = _Note(title, self._out)
        with (self._bar if self.console.is_terminal else self._lines)(plain(title), note) as show:

            def progress(done: int, total: int) -> None:
                note.write(done, total)
                show(done, total)

            yield progress

    @contextmanager
    def _bar(self, title: str, note: _Note) -> Iterator[Progress]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description:<30}", markup=False),
            BarColumn(20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[memory]}", markup=False),
        )
        with Bars(*columns, console=self.console, refresh_per_second=4) as bars:
            bar = bars.add_task(title, total=None, memory="")

            def show(done: int, total: int) -> None:
                bars.update(bar, completed=done, total=total, memory=size(memory()))

            yield show
            # A job that stopped early is complete all the same.
            bars.update(bar, total=bars.tasks[0].completed)

    @contextmanager
    def _lines(self, title: str, note: _Note) -> Iterator[Progress]:
        last = began = time.monotonic()
        reached = 0

        def show(done: int, total: int) -> None:
            nonlocal last, reached
            reached = done
            if time.monotonic() - last >= _LINE_EVERY:
                last = time.monotonic()
                left = time_left(done, total, last - began)
                self.say(f"{title}: {done}/{total}, {clock(left)} left, {size(memory())}")

        yield show
        self.say(f"{title}: {reached}/{reached} in {clock(time.monotonic() - began)}")


class _Note:
    """What a task does, in a file that another process can read."""

    def __init__(self, title: str, out: Path | None) -> None:
        self._title, self._out = title, out
        self._began, self._last, self._first = time.time(), 0.0, None

    _first: int | None

    def write(self, done: int, total: int) -> None:
        """Replace the note, if it is time to. Progress is no result: what fails here is left."""
        now = time.time()
        # A run that was resumed begins with some of the work done, in no time.
        self._first = done if self._first is None else self._first
        if self._out is None or not self._out.is_dir() or now - self._last < _NOTE_EVERY:
            return
        self._last = now
        held = {
            "pid": os.getpid(), "phase": self._title, "done": done, "total": total,
            "first": self._first, "began": self._began, "updated": now, "memory": memory(),
            "gpu_memory": gpu_memory(),
        }  # fmt: skip
        aside = self._out / f"{NOTE}.{os.getpid()}"
        aside.write_text(json.dumps(held), encoding="utf-8")
        os.replace(aside, self._out / NOTE)


def time_left(done: int, total: int, seconds: float) -> float | None:
    """Seconds until all is done, if it goes on as before; `None` if nothing is done yet."""
    return seconds / done * (total - done) if done > 0 else None


def clock(seconds: float | None) -> str:
    """Seconds as h:mm:ss."""
    if seconds is None:
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def memory() -> int:
    """The most bytes of main memory that this process has held; 0 where the system does not say."""
    if sys.platform == "win32":
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # kilobytes, but for macOS


def gpu_memory() -> int:
    """The most bytes of GPU memory that this process has held; 0 if it uses none."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.max_memory_allocated())


def size(count: int) -> str:
    """Bytes as GB or MB; empty for none."""
    if not count:
        return ""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
