"""What can go wrong, and the exit code it ends with.

KnowUndoError        1
├── BadInput         2   a file, a row, a key: the message names the place and the mend
├── Diverged         3   a loss or a weight is no longer a finite number
└── MethodsFailed    3   the run finished, but some methods diverged
"""

from __future__ import annotations

from collections.abc import Iterable


class KnowUndoError(Exception):
    """Base of every error that is shown as one line instead of a traceback."""

    exit_code = 1


class BadInput(KnowUndoError):
    """The user's input is wrong; nothing was written."""

    exit_code = 2


class Diverged(KnowUndoError):
    """Training blew up: a loss or a weight is not finite."""

    exit_code = 3


class MethodsFailed(KnowUndoError):
    """Some methods diverged; the others are complete."""

    exit_code = 3


def unknown(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """An error for a name that does not exist, with the nearest one that does."""
    from rapidfuzz.fuzz import ratio
    from rapidfuzz.process import extractOne

    names = sorted(known)
    best = extractOne(name, names, scorer=ratio, score_cutoff=50)
    hint = f"did you mean '{best[0]}'?" if best else f"known: {', '.join(names)}"
    return BadInput(f"unknown {kind} '{name}'; {hint}")
