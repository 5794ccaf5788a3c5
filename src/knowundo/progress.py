"""What a long job tells its user, on stderr; stdout belongs to results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from knowundo.errors import plain

# `progress(done, total)`.
Progress = Callable[[int, int], None]


class Reporter:
    """Tells nothing; the library's default."""

    def say(self, text: str) -> None:
        """One line about something that happened."""

    @contextmanager
    def task(self, title: str) -> Iterator[Progress]:
        """A bar while the block runs."""
        yield lambda done, total: None


class RichReporter(Reporter):
    """Lines and bars on stderr."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        self.console.print(plain(text), markup=False, soft_wrap=True)

    @contextmanager
    def task(self, title: str) -> Iterator[Progress]:
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
            bars.update(
                bar, total=bars.tasks[0].completed
            )  # it may have stopped early, and is done
