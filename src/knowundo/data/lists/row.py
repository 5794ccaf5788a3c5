"""A row of a list file, and checks of its values."""

from __future__ import annotations

from typing import Any, NamedTuple

from knowundo.data.records import readable
from knowundo.errors import BadInput

# Every key that a row may have; `columns` gives them other names.
KEYS = (
    "question", "answer", "prompt", "completion", "messages", "text", "labels",
    "id", "split", "subject", "subset", "facts", "turns", "generated", "continues",
)  # fmt: skip


SHAPES = (
    "a row has question and answer, or prompt and completion, or messages, or text and labels, or "
    "text alone; say --columns question=… if yours are named otherwise"
)


class ListRow(NamedTuple):
    """A row of a file, and where it stands there."""

    place: str
    values: dict[str, Any]


def string_of(value: Any, what: str, place: str) -> str:
    """Any text, without newlines at its end."""
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise BadInput(f'{place}: {what} is {kind_of(value)}, not a text; write it as "…"')
    if not readable(value):
        raise BadInput(f"{place}: {what} holds a NUL or half a character; remove it")
    return value.rstrip("\r\n")


def kind_of(value: Any) -> str:
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
