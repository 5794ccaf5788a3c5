"""When memory runs out: smaller batches, the same results to rounding, and a note that it happened.

What counts as running out is accelerate's to say, on a GPU and on a CPU. A process that the system
itself kills for memory cannot be helped here; it resumes from its last checkpoint.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

Row = TypeVar("Row")
Made = TypeVar("Made")
# Seconds between two times that freed memory goes back to the system.
OFTEN = 1.0
# Numbers of a model from which that is worth its time.
TRIMMED_FROM = 10_000_000


def ran_out(error: Exception) -> bool:
    """True if the error says that memory ran out; what can be freed is freed."""
    if not should_reduce_batch_size(error):
        return False
    clear_device_cache(garbage_collection=True)
    return True


@dataclass
class Attempt:
    """What came of an attempt: the error, or `None` where there was none."""

    error: Exception | None = None


@contextmanager
def attempt() -> Iterator[Attempt]:
    """Within it, whatever an architecture raises ends the block and is held in `Attempt.error`.

    Custom code and architectures that were not made for something fail in any way. An error that
    says that memory ran out is raised: it tells nothing of the architecture.
    """
    tried = Attempt()
    try:
        yield tried
    except Exception as error:
        if ran_out(error):
            raise
        tried.error = error


def halved(size: int, error: Exception, note: Callable[[str], None], work: str) -> int:
    """Half of a batch size; the error itself, if it is another, or if one row does not fit.

    Args:
        size: rows that did not fit.
        error: what was raised.
        note: gets a sentence about it.
        work: what was being done.
    """
    if size <= 1 or not ran_out(error):
        raise error
    half = -(-size // 2)
    note(f"{work}: memory ran out at {size} rows a batch, continued with {half}")
    return half


def in_portions(
    rows: Sequence[Row],
    size: int,
    work: Callable[[Sequence[Row]], Made],
    note: Callable[[str], None],
    title: str,
) -> Iterator[Made]:
    """`work` on the rows in order, `size` at a time, or fewer from where memory ran out.

    Args:
        rows: in any order; a portion's rows stay neighbours.
        size: rows at a time, to begin with.
        work: done on each portion; what it makes is yielded.
        note: gets a sentence each time that a batch was halved.
        title: what the work is, for that sentence.
    """
    start = 0
    while start < len(rows):
        try:
            made = work(rows[start : start + size])
        except RuntimeError as error:
            size = halved(min(size, len(rows) - start), error, note, title)
            continue
        start += size
        yield made


class Freed:
    """Gives back to the system what was freed, now and then.

    glibc keeps freed blocks. Batches of many sizes leave holes between them that the next one does
    not fit, and a process comes to hold half as much again as it ever used at once (measured: 1.35
    GiB of 0.85 on a Llama of 111 M parameters). Giving back takes 50 ms of so large a process.
    """

    def __init__(self, numbers: int) -> None:
        """For work on a model of so many numbers."""
        self._due = time.monotonic() + OFTEN  # what is over sooner does not need it
        library = ctypes.CDLL(None) if sys.platform == "linux" and numbers >= TRIMMED_FROM else None
        self._trim = getattr(library, "malloc_trim", None)  # `None` with another C library's malloc

    def give_back(self) -> None:
        """If it is time."""
        if self._trim is not None and time.monotonic() >= self._due:
            self._trim(0)
            self._due = time.monotonic() + OFTEN
