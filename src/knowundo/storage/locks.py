"""One process at a time in a run's directory.

The system releases a lock when its holder dies, so a lock never stays behind. What stays behind is
the note of who held it; it shows that a process ended before its work was done.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from filelock import FileLock, Timeout

from knowundo.distributed.group import barrier, from_main
from knowundo.errors import BadInput
from knowundo.progress import NOTE, Reporter
from knowundo.storage.artifacts import clear_partials
from knowundo.storage.files import read_json, write_json

LOCK, HOLDER = ".lock", ".lock.json"
_held: set[Path] = set()
Work = TypeVar("Work", bound=Callable[..., Any])


def alone(work: Work) -> Work:
    """Decorator: meanwhile no other process works in the run's directory (first argument)."""

    @wraps(work)
    def held(run: Any, *args: Any, **options: Any) -> Any:
        with exclusive(run.out, run.reporter):
            return work(run, *args, **options)

    return cast(Work, held)


@contextmanager
def exclusive(out: Path, reporter: Reporter | None = None) -> Iterator[None]:
    """Lock a run's directory while the block runs; blocks of one process may be nested.

    Of several processes the main one holds the lock, for all of them.

    Args:
        out: Made if it does not exist.
        reporter: Told of a process that ended before its work was done. If `None`, nobody is told.

    Raises:
        BadInput: Another process has locked it; names its pid, its host and since when. Or the
            directory cannot be written.
    """
    place = out.resolve()
    if place in _held:
        yield
        barrier()
        return
    with ExitStack() as stack:
        from_main(lambda: stack.enter_context(_locked(out, place, reporter)) and None)
        _held.add(place)
        try:
            yield
        finally:
            _held.discard(place)
        barrier()  # all have read what was written here before the next one may change it


@contextmanager
def _locked(out: Path, place: Path, reporter: Reporter | None) -> Iterator[None]:
    made = [folder for folder in (place, *place.parents) if not folder.exists()]
    lock, note = FileLock(place / LOCK), place / HOLDER
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(f"{out}: in use by {_holder(note)}; wait for it, or stop it") from None
    except OSError as error:
        raise BadInput(
            f"{out}: cannot be written ({error.strerror}); choose another directory with --out"
        ) from None
    try:
        if note.exists():
            (reporter or Reporter()).say(
                f"{out}: {_holder(note)} ended before its work was done; resuming"
            )
        clear_partials(place)
        write_json(note, _note())
        yield
    finally:
        note.unlink(missing_ok=True)
        (place / NOTE).unlink(missing_ok=True)
        lock.release()
        if made and {file.name for file in place.iterdir()} <= {LOCK}:  # nothing was written
            (place / LOCK).unlink(missing_ok=True)
            for folder in made:
                if not any(folder.iterdir()):
                    folder.rmdir()


def _note() -> dict[str, str | int]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]]),
    }


def _holder(note: Path) -> str:
    """The process that holds a lock, as far as its note says."""
    try:
        held = read_json(note)
        return (
            f"process {int(held['pid'])} on {held['host']} "
            f"({held['command']}, since {held['began']})"
        )
    except (BadInput, ValueError, KeyError, TypeError, OverflowError):
        return "an unknown process (its note is not readable)"
