"""Errors of the package, and the exit code of each.

KnowUndoError        1
├── BadInput         2   a file, a row, a key: the message names the place and the fix
│   └── TooLong      2   a row has more tokens than fit
├── NoRoom           1   the disk is full
├── Diverged         3   a loss or a weight is no longer a finite number
└── MethodsFailed    3   the run finished, but some methods diverged
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# Characters of a message; what it quotes may be of any length.
_LONGEST = 1000


def plain(text: str) -> str:
    """The text as one line, with what a terminal would obey or cannot show escaped.

    That is every character that Unicode does not call printable: controls, line separators, marks
    of direction, halves of characters, private and unassigned ones, and spaces but the common one.
    """
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has no message."""
    return str(error).strip().split("\n")[0] or type(error).__name__


class KnowUndoError(Exception):
    """Base of every error that is shown as one line instead of a traceback."""

    exit_code = 1

    def __str__(self) -> str:
        text = plain(super().__str__())
        half = _LONGEST // 2
        return text if len(text) <= _LONGEST else f"{text[:half]} … {text[-half:]}"


class BadInput(KnowUndoError):
    """The user's input is wrong; nothing was written."""

    exit_code = 2


class TooLong(BadInput):
    """A row has more tokens than `data.max_length` or the model's positions allow."""


class NoRoom(KnowUndoError):
    """The disk is full; the unfinished file was removed, what was there before is untouched."""


class Diverged(KnowUndoError):
    """Training diverged: a loss, a gradient or a weight is not finite.

    Attributes:
        step: The optimizer step whose weights were kept.
        curve: The training curve until then.
    """

    exit_code = 3

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.step = 0
        self.curve: list[dict[str, Any]] = []


class MethodsFailed(KnowUndoError):
    """Some methods diverged; their last good weights were kept. The others are complete."""

    exit_code = 3


def unknown(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """An error for a name that does not exist; it suggests the nearest one that does.

    Args:
        kind: What the name is of, such as "method".
        name: As it was given.
        known: All names that exist.
    """
    from rapidfuzz.fuzz import ratio
    from rapidfuzz.process import extractOne

    names = sorted(known)
    best = extractOne(name, names, scorer=ratio, score_cutoff=50)
    hint = f"did you mean '{best[0]}'?" if best else f"known: {', '.join(names)}"
    return BadInput(f"unknown {kind} '{name}'; {hint}")
