"""Messages and progress of a long job, on stderr; stdout is for results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from knowundo.errors import plain

# `progress(done, total)`.
Progress = Callable[[int, int], None]


class Reporter:
    """Reports nothing; the default of the library."""

    def say(self, text: str) -> None:
        """Report one line about something that happened."""

    @contextmanager
    def task(self, title: str) -> Iterator[Progress]:
        """A progress bar while the block runs; yields a function `(done, total)`."""
        yield lambda done, total: None


class RichReporter(Reporter):
    """Lines and bars on stderr."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """Print one line; what a terminal would obey is escaped."""
        self.console.print(plain(text), markup=False, soft_wrap=True)

    @contextmanager
    def task(self, title: str) -> Iterator[Progress]:
        """A progress bar of rich while the block runs."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description:<38}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Bars(*columns, console=self.console, refresh_per_second=4) as bars:
            bar = bars.add_task(plain(title), total=None)
            yield lambda done, total: bars.update(bar, completed=done, total=total)
            # A job that stopped early is complete all the same.
            bars.update(bar, total=bars.tasks[0].completed)
