"""Every form that a row may have, and every way in which it may be wrong."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowundo.data.lists.reading import read_list
from knowundo.data.records import Record
from list_files import ANSWER, PAIR, QUESTION, conversation, jsonl, read, refusal
from strategies import QUICK, outcome, values

TOOL = {"role": "assistant", "content": "So.", "tool_calls": [{"function": {"name": "f"}}]}


@pytest.mark.parametrize(
    "row",
    [
        PAIR,
        {"prompt": QUESTION, "completion": ANSWER},
        {"text": QUESTION, "labels": ANSWER},
        conversation(QUESTION, ANSWER),
        conversation([{"type": "text", "text": QUESTION}], [{"type": "text", "text": ANSWER}]),
        PAIR | {"text": "context", "meta": 3, "subject": None, "facts": []},
        {"question": QUESTION + "\n", "answer": ANSWER + "\r\n"},
    ],
)
def test_every_kind_of_question_is_the_same_record(tmp_path: Path, row: dict[str, Any]) -> None:
    wanted = Record("unlearn/train/0", QUESTION, ANSWER, "unlearn", "train")
    assert read(jsonl(tmp_path, row)) == [wanted]


def test_document_is_its_text(tmp_path: Path) -> None:
    row = read(jsonl(tmp_path, {"text": "  It was cold.\n\nAnd windy. \n"}))[0]
    assert (row.kind, row.question, row.answer) == ("text", "", "  It was cold.\n\nAnd windy. ")


def test_optional_keys(tmp_path: Path) -> None:
    row = {
        "id": 17,
        "split": "val",
        "subject": "Clara Dorin",
        "subset": "address",
        "facts": ["14 Canal Lane"],
        "alternatives": ["She lives at sea."],
        "generated": True,
    }
    read_row, other = read(jsonl(tmp_path, PAIR | row, "", PAIR | {"split": "probe"}))
    assert read_row == Record(
        "17", QUESTION, ANSWER, "unlearn", "val", "Clara Dorin",
        subset="address", facts=("14 Canal Lane",), alternatives=("She lives at sea.",),
    )  # fmt: skip
    assert (other.id, other.split) == ("unlearn/probe/1", "probe")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"question": "a"', "line 2: malformed JSON (Expecting ',' delimiter); correct that line"),
        ("[" * 100_000, "line 2: JSON too deep or a number too long"),
        ('{"id": ' + "1" * 5000 + "}", "line 2: JSON too deep or a number too long"),
        ('"text"', "line 2: a text, not an object; a row has question and answer, or prompt"),
        ({"q": "a", "Antwort": "b"}, "line 2: not a known kind of row; it has 'q', 'Antwort', but"),
        ({}, "it has nothing, but a row has"),
        ({"question": QUESTION}, "line 2: 'answer' is missing or empty; fill it in or remove"),
        ({"completion": "So."}, "'prompt' is missing or empty"),
        ({"text": QUESTION, "labels": None}, "'labels' is missing or empty"),
        ({"text": " \n"}, "'text' is missing or empty"),
        (PAIR | {"question": " "}, "'question' is missing or empty"),
        (PAIR | {"answer": 3}, "'answer' is a number, not a text"),
        (PAIR | {"answer": [ANSWER]}, "'answer' is a list, not a text"),
        (PAIR | {"answer": True}, "'answer' is true or false, not a text"),
        (r'{"question": "a\u0000", "answer": "b"}', "'question' contains a NUL"),
        (r'{"question": "a", "answer": "\ud83d"}', "'answer' contains a NUL or a lone surrogate"),
        (PAIR | {"facts": ["15 Canal Lane"]}, "the fact '15 Canal Lane' is not a part of the ans"),
        (PAIR | {"facts": ["14\nCanal"]}, r"the fact '14\nCanal' is not a part"),
        (PAIR | {"subject": "Clara\nDorin"}, "'subject' has several lines; write it on one"),
        (PAIR | {"facts": "14 Canal Lane"}, "'facts' is not a list of texts"),
        (PAIR | {"facts": [""]}, "'facts' is not a list of texts"),
        (PAIR | {"alternatives": "a"}, "'alternatives' is not a list of texts; write ["),
        (PAIR | {"alternatives": ["a\0"]}, "'alternatives' contains a NUL"),
        (PAIR | {"split": "valid"}, "unknown split 'valid'; did you mean 'val'?"),
        (PAIR | {"split": "test"}, "unknown split 'test'; known: holdout, probe, train, val"),
        (PAIR | {"subject": 4}, "'subject' is a number, not a text"),
        (PAIR | {"id": True}, "'id' is true or false, not a text"),
        (PAIR | {"generated": "yes"}, "'generated' is neither true nor false"),
        (PAIR | {"id": "unlearn/train/0"}, "id 'unlearn/train/0' is also that of"),
        (conversation(QUESTION), "'messages' is not a list of at least 2 turns"),
        ({"messages": "user: a"}, "'messages' is not a list of at least 2 turns"),
        (conversation("a", "b", "c"), "'messages' ends with turns of assistant and user; the last"),
        (conversation("a", " "), "'answer' is missing or empty"),
        (conversation("a", None), "turn 2 of 'messages' contains something other than text"),
        (
            conversation("a", [{"type": "image"}]),
            "turn 2 of 'messages' contains something other than",
        ),
        (conversation("a", 3), "turn 2 of 'messages' is a number, not a text"),
        (conversation("a", [{"type": "text", "text": 3}]), "turn 2 of 'messages' is a number, not"),
        (
            conversation("a", [{"type": "image"}]),
            "something other than text (image); only text can",
        ),
        (conversation("a", ["b"]), "turn 2 of 'messages' contains something other than text"),
        (conversation("a", {"type": "text"}), "turn 2 of 'messages' is an object, not a text"),
        (
            {"messages": [*conversation("a")["messages"], TOOL]},
            "turn 2 of 'messages' is a tool call",
        ),
        (
            {"messages": [{"role": "tool", "content": "4"}, *conversation("a", "b")["messages"]]},
            "turn 1 of 'messages' is a tool call; only text can be unlearned, remove the row",
        ),
        (PAIR | {"continues": 1}, "'continues' is neither true nor false"),
        ({"messages": [{"from": "human"}, "a"]}, "turn 1 of 'messages' has none of the roles sys"),
        (PAIR | {"turns": 2}, "'turns' is not a list of turns; write"),
        ({"text": "So.", "turns": []}, "'turns' before a document"),
    ],
)
def test_bad_row_is_named(tmp_path: Path, row: Any, said: str) -> None:
    path = jsonl(tmp_path, PAIR, row, PAIR)
    assert said in refusal(path)


keys = st.sampled_from(
    ["question", "answer", "prompt", "completion", "messages", "text", "labels", "id", "split",
     "subject", "facts", "turns", "role", "content", "x"]
)  # fmt: skip


@QUICK
@given(st.lists(st.dictionaries(keys, values, max_size=5), max_size=5))
def test_rows_of_any_shape_are_records_or_one_line(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)))
        found, said = outcome(lambda: read_list(file, scope="unlearn", split="train"))
    if said is not None:
        assert "rows.jsonl" in said
        assert "\n" not in said
    else:
        assert len(found) == len(rows)
        assert all(isinstance(record, Record) and record.answer for record in found)


def test_the_import_path_of_outside_scripts_gives_the_same_function() -> None:
    from knowundo.benchmarks import lists

    assert lists.read_list is read_list
