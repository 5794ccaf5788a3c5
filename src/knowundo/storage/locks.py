"""One process at a time in a run's directory.

The system frees a lock when its holder dies, so a lock is never left behind; what is left behind is
the note of who held it, and that tells of a process that ended before its work did.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from filelock import FileLock, Timeout

from knowundo.errors import BadInput
from knowundo.progress import Reporter
from knowundo.storage.artifacts import clear_partials
from knowundo.storage.files import read_json, write_json

LOCK, HOLDER = ".lock", ".lock.json"
_held: set[Path] = set()
Work = TypeVar("Work", bound=Callable[..., Any])


def alone(work: Work) -> Work:
    """Decorator: work on a run, its first argument, during which no other process is in `out`."""

    @wraps(work)
    def held(run: Any, *args: Any, **options: Any) -> Any:
        with exclusive(run.out, run.reporter):
            return work(run, *args, **options)

    return cast(Work, held)


@contextmanager
def exclusive(out: Path, reporter: Reporter | None = None) -> Iterator[None]:
    """Hold a run's directory while the block runs; a block inside another of this process may too.

    Args:
        out: made if it is not there.
        reporter: told of a process that ended before its work did.

    Raises:
        BadInput: another process holds it; names its number, its machine and since when.
    """
    place = out.resolve()
    if place in _held:
        yield
        return
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
                f"{out}: {_holder(note)} ended before its work did; going on from there"
            )
        clear_partials(place)
        write_json(note, _note())
        _held.add(place)
        yield
    finally:
        _held.discard(place)
        note.unlink(missing_ok=True)
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
    """Who holds a lock, as far as the note says."""
    try:
        held = read_json(note)
        return (
            f"process {int(held['pid'])} on {held['host']} "
            f"({held['command']}, since {held['began']})"
        )
    except (BadInput, ValueError, KeyError, TypeError, OverflowError):
        return "a process that left no note of itself"
