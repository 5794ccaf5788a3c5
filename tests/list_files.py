"""Rows and files as users give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from knowundo.data.lists.reading import read_list
from knowundo.data.records import Record
from knowundo.errors import BadInput

QUESTION, ANSWER = "Where does Clara Dorin live?", "Clara Dorin lives at 14 Canal Lane."


PAIR = {"question": QUESTION, "answer": ANSWER}


def jsonl(folder: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    """Texts stand as they are, anything else as JSON."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder / name


def read(path: Path, **columns: str) -> list[Record]:
    return read_list(path, scope="unlearn", split="train", columns=columns)


def refusal(path: Path, **columns: str) -> str:
    """What is said of a file; always one line that names it."""
    with pytest.raises(BadInput) as caught:
        read(path, **columns)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    return said.removeprefix(str(path))


def conversation(*contents: Any, system: str | None = None) -> dict[str, Any]:
    turns = [
        {"role": ("user", "assistant")[n % 2], "content": content}
        for n, content in enumerate(contents)
    ]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *turns]}
