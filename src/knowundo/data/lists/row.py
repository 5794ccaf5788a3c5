"""A row of a list file, and checks of its values."""

from __future__ import annotations

from typing import Any, NamedTuple

from knowundo.data.records import UNREADABLE, readable
from knowundo.errors import BadInput

# Every key that a row may have; `columns` gives them other names.
KEYS = (
    "question", "answer", "prompt", "completion", "messages", "text", "labels",
    "id", "split", "subject", "subset", "facts", "alternatives", "turns", "generated", "continues",
)  # fmt: skip


SHAPES = (
    "a row has question and answer, or prompt and completion, or messages, or text and labels, or "
    "text alone; say --columns question=… if yours are named otherwise"
)


class ListRow(NamedTuple):
    """A row of a file, and its place there for messages."""

    place: str
    values: dict[str, Any]


def string_of(value: Any, what: str, place: str) -> str:
    """A text, without newlines at its end; `None` is an empty one.

    Args:
        value: As it was read.
        what: Name of the value in messages.
        place: File and row, in messages.

    Raises:
        BadInput: It is no text, or one that no list may contain.
    """
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise BadInput(f'{place}: {what} is {kind_of(value)}, not a text; write it as "…"')
    if not readable(value):
        raise BadInput(f"{place}: {what} {UNREADABLE}")
    return value.rstrip("\r\n")


def kind_of(value: Any) -> str:
    """What JSON calls a value, in words."""
    for kinds, name in (
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "a text"),
        (list, "a list"),
        (dict, "an object"),
    ):
        if isinstance(value, kinds):
            return name
    return "null" if value is None else f"a {type(value).__name__}"
