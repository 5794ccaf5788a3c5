"""Every format of a list, and every way in which a file may be wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from datasets import Dataset

from knowundo.data.lists.files import parse_columns
from knowundo.data.records import Record
from knowundo.errors import BadInput
from list_files import ANSWER, PAIR, QUESTION, conversation, jsonl, read, refusal


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_every_format_holds_the_same_records(tmp_path: Path, ending: str) -> None:
    rows = [
        {"question": QUESTION, "answer": ANSWER, "subject": "Clara Dorin", "facts": ["14", "Lane"]},
        {"question": 'She said "où",\nand?', "answer": "Là\u2028—\x85 14", "facts": ["14"]},
    ]
    path = tmp_path / f"rows.{ending.upper() if ending == 'csv' else ending}"
    if ending == "jsonl":
        jsonl(tmp_path, *rows)
    elif ending == "json":
        path.write_text(json.dumps(rows))
    elif ending == "parquet":
        Dataset.from_list(rows).to_parquet(path)
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as stream:
            writer = csv.writer(stream, delimiter="\t" if ending == "tsv" else ",")
            writer.writerow(["answer", "question", " subject", "facts", ""])
            writer.writerow([ANSWER, QUESTION, "Clara Dorin", '["14", "Lane"]', "0"])
            writer.writerow(["", "", "", " ", ""])
            writer.writerow([rows[1]["answer"], rows[1]["question"], "", "14", ""])
    assert read(path) == [
        Record(
            f"unlearn/train/{number}",
            str(row["question"]),
            str(row["answer"]),
            "unlearn",
            "train",
            "Clara Dorin" if number == 0 else None,
            facts=tuple(row["facts"]),
        )
        for number, row in enumerate(rows)
    ]


def test_jsonl_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = jsonl(tmp_path, "\ufeff" + json.dumps(PAIR))
    assert read(path)[0].answer == ANSWER


def test_columns_give_other_names(tmp_path: Path) -> None:
    rows = {"Q": QUESTION, "A": ANSWER, "answer": "unused", "no": 4}, {"Q": "And?", "A": "So."}
    path = jsonl(tmp_path, *rows)
    found = read(path, **parse_columns(" question=Q, answer=A"))
    assert [(r.question, r.answer) for r in found] == [(QUESTION, ANSWER), ("And?", "So.")]
    other = jsonl(tmp_path, PAIR, name="other.jsonl")
    swapped = read(other, question="answer", answer="question")[0]
    assert (swapped.question, swapped.answer) == (ANSWER, QUESTION)
    assert read(path, question="Q", answer="A", id="no")[0].id == "4"
    assert refusal(path, question="Qq") == (
        ": unknown column 'Qq'; did you mean 'Q'? It has Q, A, answer, no"
    )
    assert refusal(path, answer="reply") == ": unknown column 'reply'; known: A, Q, answer, no"
    assert "unknown name 'qestion'; did you mean 'question'" in refusal(path, qestion="Q")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("question", "'question' is not a pair; write question=Q,answer=A"),
        ("question=Q,", "'' is not a pair"),
        ("=Q", "'=Q' is not a pair"),
        ("question=Q,anser=A", "unknown name 'anser'; did you mean 'answer'?"),
        ("question=Q,question=R", "'question' occurs twice"),
    ],
)
def test_bad_columns_are_named(text: str, said: str) -> None:
    with pytest.raises(BadInput, match="--columns") as caught:
        parse_columns(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", ": has no rows"),
        ("a.jsonl", b"\n \n", ": has no rows"),
        ("a.json", b"[]", ": has no rows"),
        ("a.json", b"", ": has no rows"),
        ("a.csv", b"", ": has no rows"),
        ("a.csv", b"question,answer\n\n", ": has no rows"),
        ("a.txt", b"text", ": expected a file named .jsonl, .json, .csv, .tsv, .parquet"),
        ("a.jsonl", b'[\n{"text": "a"}\n]', ", line 1: malformed JSON (Expecting value); a row is"),
        ("a.jsonl", b'[{"text": "a"}]', ", line 1: a list, not an object"),
        ("a.json", b'[{"text": }]', ", line 1, column 11: malformed JSON (Expecting value); corr"),
        ("a.json", b'{"text": "a"}\n{"text": "b"}', "name it .jsonl if it holds one object a"),
        ("a.json", b'{"train": []}', ": an object, not a list of rows"),
        ("a.json", b'["a"]', ", row 1: a text, not an object"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}', ", line 2: not UTF-8; save the file as"),
        ("a.csv", "text\na".encode("utf-16"), ", line 1: not UTF-8"),
        ("a.csv", "text\na".encode("utf-16-le"), ", line 1: a NUL byte"),
        ("a.csv", b"question,answer\na,b\na,b,c\n", ", row 2: 3 cells under 2 columns; put a text"),
        ("a.csv", b"question,answer\na\n", ", row 1: 1 cells under 2 columns"),
        ("a.csv", b"question,answer,answer\na,b,c\n", ": two columns are named 'answer'; rename"),
        ("a.csv", b"question;answer\na;b\n", ": one column, 'question;answer', seemingly separat"),
        ("a.csv", b'question,answer\na,"b\n', ", line 2: unexpected end of data; close its quo"),
        ("a.csv", b"text\n" + b"a" * 200_000, "belong into a .jsonl file"),
        ("a.csv", b"question,answer\na,\n", ", row 1: 'answer' is missing or empty"),
        ("a.csv", b"text,labels\na,\n", ", row 1: 'labels' is missing or empty"),
        ("a.csv", b"text,facts\nab,[a\n", ", row 1: the fact '[a' is not a part"),
        ("a.parquet", b"PAR1 no", ": not readable as Parquet"),
    ],
)
def test_bad_file_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert said in refusal(path)


def test_no_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.jsonl") == ": no such file; check the path"
    assert refusal(tmp_path) == ": a folder; name a file in it"


def test_parquet_keeps_to_its_types(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    Dataset.from_list([conversation("a", "b", QUESTION, ANSWER)]).to_parquet(path)
    assert read(path)[0].turns == (("user", "a"), ("assistant", "b"))
    Dataset.from_list([{"question": "How many?", "answer": 3}]).to_parquet(path)
    assert refusal(path).startswith(", row 1: 'answer' is a number, not a text")


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_inside_cells_are_newlines(tmp_path: Path, end: str) -> None:
    (tmp_path / "rows.csv").write_text(
        end.join(["question,answer,facts", 'Where?,"Ada', 'Lane 1","Ada', 'Lane"', ""]), newline=""
    )
    (found,) = read(tmp_path / "rows.csv")
    assert (found.answer, found.facts) == ("Ada\nLane 1", ("Ada\nLane",))
