"""Rows that are chat conversations: turns, tools and content in parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knowundo.data.lists.row import ListRow, string_of
from knowundo.data.records import ROLES
from knowundo.errors import BadInput


def conversation_record(row: ListRow, key: str, *, least: int = 0) -> list[tuple[str, str]]:
    """Turns of a conversation as (role, content).

    Args:
        row: A row of a list file.
        key: Its key with the messages.
        least: Number of turns that it must have.

    Raises:
        BadInput: No list of messages, another role, a tool call, or content that is not text.
    """
    messages = row.values[key]
    if not isinstance(messages, list) or len(messages) < least:
        count = f"at least {least} " if least else ""
        raise BadInput(
            f"{row.place}: '{key}' is not a list of {count}turns; write "
            '[{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'
        )
    turns = []
    for number, message in enumerate(messages, start=1):
        what = f"turn {number} of '{key}'"
        role = message.get("role") if isinstance(message, dict) else None
        if role in ("tool", "function") or (role in ROLES and _calls_tool(message)):
            raise BadInput(
                f"{row.place}: {what} is a tool call; only text can be unlearned, remove the row"
            )
        if role not in ROLES:
            raise BadInput(f"{row.place}: {what} has none of the roles {', '.join(ROLES)}")
        turns.append((role, _content(message.get("content"), what, row.place)))
    return turns


def _calls_tool(message: Mapping[str, Any]) -> bool:
    # In Parquet every message has every key.
    return bool(message.get("tool_calls") or message.get("function_call"))


def _content(content: Any, what: str, place: str) -> str:
    """A turn's text, which may be a list of parts."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or part.get("text") is None:
            kind = part.get("type") if isinstance(part, dict) else None
            shown = f" ({kind})" if isinstance(kind, str) and kind != "text" else ""
            raise BadInput(
                f"{place}: {what} contains something other than text{shown}; only text can be "
                "unlearned, remove the row"
            )
        texts.append(string_of(part["text"], what, place))
    return "".join(texts)
