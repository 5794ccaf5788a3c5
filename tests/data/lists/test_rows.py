"""Rows that a program hands over are rows of a list file, with places of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from knowundo.data.lists.reading import read_list
from knowundo.data.lists.rows import is_question, row_source
from knowundo.data.records import Record
from knowundo.errors import BadInput


@pytest.mark.parametrize(
    "text",
    [
        "Who?",
        "Who? ",
        "«Who?»",
        "谁住在桦树街？",
        "من أنت؟",
        "Ποιος είναι;"[:-1] + "\u037e",
        "Ո՞վ՞",
    ],
)
def test_a_question_mark_of_any_script_ends_a_question(text: str) -> None:
    assert is_question(text)


@pytest.mark.parametrize("text", ["She does.", "Who? She does.", "", "a; b;", "住在桦树街。"])
def test_anything_else_is_none(text: str) -> None:
    assert not is_question(text)


def test_every_kind_of_row_becomes_a_record() -> None:
    source = row_source(
        ["Who sings?", "All of the song.", ("Who?", "She."), {"question": "Why?", "other": 1},
         {"messages": [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B"}]}],
        "rows",
    )  # fmt: skip
    records = read_list(source, scope="unlearn", split="train", unanswered=True)
    assert [(r.kind, r.question, r.answer) for r in records] == [
        ("qa", "Who sings?", ""), ("text", "", "All of the song."), ("qa", "Who?", "She."),
        ("qa", "Why?", ""), ("qa", "A?", "B"),
    ]  # fmt: skip
    assert isinstance(records[0], Record)


def test_a_text_is_a_path_or_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert row_source("rows.jsonl", "rows") == Path("rows.jsonl")
    assert row_source(tmp_path, "rows") == tmp_path
    ((place, values),) = row_source("Who lives there?", "rows")  # type: ignore[misc]
    assert (place, values) == ("rows, row 1", {"question": "Who lives there?"})
    ((_, values),) = row_source("谁住在桦树街？", "rows")  # type: ignore[misc]
    assert values == {"question": "谁住在桦树街？"}
    Path("my rows.jsonl").write_text("{}", encoding="utf-8")
    assert row_source("my rows.jsonl", "rows") == Path("my rows.jsonl")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "rows: has no rows"),
        ({"question": "Who?"}, "rows: an object, not a list of rows"),
        (3, "rows: a number, not a list of rows"),
        (["Who?", 3], "rows, row 2: a number, not a row"),
        ([("Who?", "She.", "x")], "rows, row 1: a tuple, not a row"),
    ],
)
def test_what_is_no_row_is_named(given: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        row_source(given, "rows")


def test_an_answer_that_is_there_and_empty_is_refused() -> None:
    """Only a row without the key is a question alone."""
    source = row_source([{"question": "Who?", "answer": ""}], "rows")
    with pytest.raises(BadInput, match="rows, row 1: 'answer' is missing or empty"):
        read_list(source, scope="unlearn", split="train", unanswered=True)
    source = row_source([{"question": "Who?"}], "val")
    with pytest.raises(BadInput, match="val, row 1: 'answer' is missing or empty"):
        read_list(source, scope="unlearn", split="val")
