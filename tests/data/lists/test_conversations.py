"""Rows that are chat conversations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from list_files import ANSWER, PAIR, QUESTION, conversation, jsonl, read


def test_earlier_turns_are_kept(tmp_path: Path) -> None:
    row = conversation("Hello", "Hi", QUESTION, ANSWER, system="Be brief.")
    given = PAIR | {"turns": row["messages"][:-2]}
    first, second = read(jsonl(tmp_path, row, given))
    assert first.turns == (("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi"))
    assert (first.question, first.answer) == (QUESTION, ANSWER)
    assert second == replace(first, id="unlearn/train/1")


def test_content_may_be_a_list_of_parts(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "At "}, {"type": "text", "text": "sea."}]
    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    row = {"messages": [system, *conversation("Where?", parts)["messages"]]}
    (found,) = read(jsonl(tmp_path, row))
    assert (found.question, found.answer) == ("Where?", "At sea.")
    assert found.turns == (("system", "Be brief."),)
    # Of Parquet every message has every key, whether it has a value or not.
    row["messages"] = [m | {"tool_calls": None, "name": None} for m in row["messages"]]
    assert read(jsonl(tmp_path, row)) == [found]
