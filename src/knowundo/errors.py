"""What can go wrong, and the exit code it ends with.

KnowUndoError        1
├── BadInput         2   a file, a row, a key: the message names the place and the mend
│   └── TooLong      2   a row has more tokens than fit
├── NoRoom           1   the disk is full
├── Diverged         3   a loss or a weight is no longer a finite number
└── MethodsFailed    3   the run finished, but some methods diverged
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# Control characters, line separators, halves of characters, and those that turn the direction of
# writing: a terminal obeys them, or cannot show them.
_OBEYED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028\u2029\ufeff\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# What a message quotes may be of any length.
_LONGEST = 1000


def plain(text: str) -> str:
    """One line that a terminal only shows: what it would obey is written out."""
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


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
    """The disk is full; what was being written is gone again, what was there before is not."""


class Diverged(KnowUndoError):
    """Training blew up: a loss, a gradient or a weight is not finite.

    `step` is the optimizer step whose weights were kept, `curve` the curve until it blew up.
    """

    exit_code = 3

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.step = 0
        self.curve: list[dict[str, Any]] = []


class MethodsFailed(KnowUndoError):
    """Some methods diverged and were kept as they were before; the others are complete."""

    exit_code = 3


def unknown(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """An error for a name that does not exist, with the nearest one that does."""
    from rapidfuzz.fuzz import ratio
    from rapidfuzz.process import extractOne

    names = sorted(known)
    best = extractOne(name, names, scorer=ratio, score_cutoff=50)
    hint = f"did you mean '{best[0]}'?" if best else f"known: {', '.join(names)}"
    return BadInput(f"unknown {kind} '{name}'; {hint}")
