"""Lists of your own: every form a row may have, every way a file may be wrong, and back again."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from conftest import records
from knowundo.data.lists.files import parse_columns
from knowundo.data.lists.reading import read_list, write_list
from knowundo.data.lists.subjects import with_subjects
from knowundo.data.records import Record, check_records, data_hash, select
from knowundo.data.wording import split_words
from knowundo.errors import BadInput
from knowundo.registry import get

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


TOOL = {"role": "assistant", "content": "So.", "tool_calls": [{"function": {"name": "f"}}]}


def conversation(*contents: Any, system: str | None = None) -> dict[str, Any]:
    turns = [
        {"role": ("user", "assistant")[n % 2], "content": content}
        for n, content in enumerate(contents)
    ]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *turns]}


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


def test_earlier_turns_are_kept(tmp_path: Path) -> None:
    row = conversation("Hello", "Hi", QUESTION, ANSWER, system="Be brief.")
    given = PAIR | {"turns": row["messages"][:-2]}
    first, second = read(jsonl(tmp_path, row, given))
    assert first.turns == (("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi"))
    assert (first.question, first.answer) == (QUESTION, ANSWER)
    assert second == replace(first, id="unlearn/train/1")


def test_optional_keys(tmp_path: Path) -> None:
    row = {
        "id": 17,
        "split": "val",
        "subject": "Clara Dorin",
        "subset": "address",
        "facts": ["14 Canal Lane"],
        "generated": True,
    }
    read_row, other = read(jsonl(tmp_path, PAIR | row, "", PAIR | {"split": "probe"}))
    assert read_row == Record(
        "17", QUESTION, ANSWER, "unlearn", "val", "Clara Dorin",
        subset="address", facts=("14 Canal Lane",),
    )  # fmt: skip
    assert (other.id, other.split) == ("unlearn/probe/1", "probe")


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
        ("question", "'question' is no pair; write question=Q,answer=A"),
        ("question=Q,", "'' is no pair"),
        ("=Q", "'=Q' is no pair"),
        ("question=Q,anser=A", "unknown name 'anser'; did you mean 'answer'?"),
        ("question=Q,question=R", "'question' occurs twice"),
    ],
)
def test_bad_columns_are_named(text: str, said: str) -> None:
    with pytest.raises(BadInput, match="--columns") as caught:
        parse_columns(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"question": "a"', "line 2: malformed JSON (Expecting ',' delimiter); correct that line"),
        ("[" * 100_000, "line 2: JSON beyond any bound"),
        ('{"id": ' + "1" * 5000 + "}", "line 2: JSON beyond any bound"),
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
        (r'{"question": "a\u0000", "answer": "b"}', "'question' holds a NUL"),
        (r'{"question": "a", "answer": "\ud83d"}', "'answer' holds a NUL or half a character"),
        (PAIR | {"facts": ["15 Canal Lane"]}, "the fact '15 Canal Lane' is not a part of the ans"),
        (PAIR | {"facts": ["14\nCanal"]}, r"the fact '14\nCanal' is not a part"),
        (PAIR | {"subject": "Clara\nDorin"}, "'subject' has several lines; write it on one"),
        (PAIR | {"facts": "14 Canal Lane"}, "'facts' is not a list of texts"),
        (PAIR | {"facts": [""]}, "'facts' is not a list of texts"),
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
        (conversation("a", None), "turn 2 of 'messages' holds something else than text"),
        (conversation("a", [{"type": "image"}]), "turn 2 of 'messages' holds something else than"),
        (conversation("a", 3), "turn 2 of 'messages' is a number, not a text"),
        (conversation("a", [{"type": "text", "text": 3}]), "turn 2 of 'messages' is a number, not"),
        (conversation("a", [{"type": "image"}]), "something else than text (image); only text can"),
        (conversation("a", ["b"]), "turn 2 of 'messages' holds something else than text"),
        (conversation("a", {"type": "text"}), "turn 2 of 'messages' is an object, not a text"),
        (
            {"messages": [*conversation("a")["messages"], TOOL]},
            "turn 2 of 'messages' is a call of a",
        ),
        (
            {"messages": [{"role": "tool", "content": "4"}, *conversation("a", "b")["messages"]]},
            "turn 1 of 'messages' is a call of a tool; only text can go, remove the row",
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


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", ": holds no rows"),
        ("a.jsonl", b"\n \n", ": holds no rows"),
        ("a.json", b"[]", ": holds no rows"),
        ("a.json", b"", ": holds no rows"),
        ("a.csv", b"", ": holds no rows"),
        ("a.csv", b"question,answer\n\n", ": holds no rows"),
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


def some() -> dict[str, list[Record]]:
    """Lists of a run with everything that a row may have."""
    made = [
        row
        for scope in ("unlearn", "retention")
        for split in ("train", "val")
        for row in records(scope, split, 3)
    ]
    made[0] = replace(made[0], subset="reworded", turns=(("system", ""), ("user", "Où?\u2028")))
    made[1] = replace(made[1], subset="generated", subject=None, facts=())
    text = Record("doc", "", " Cold —\n\n“wind”\x85 ", "general", "train", kind="text", subset="x")
    text = replace(text, continues=True)
    earlier = Record("old/1", "Who?", "She.", "unlearn", "probe", subset="earlier")
    return {
        "unlearn": select(made, scope="unlearn"),
        "retention": select(made, scope="retention"),
        "general": [text],
        "earlier": [earlier],
    }


def test_lists_of_a_run_are_read_as_written(tmp_path: Path) -> None:
    for name, rows in some().items():
        write_list(tmp_path / f"{name}.jsonl", rows)
    found = get("benchmark", "lists")(domain="lists", source=str(tmp_path), seed=4)
    assert found == [row for rows in some().values() for row in rows]
    check_records(found)
    lines = (tmp_path / "unlearn.jsonl").read_text("utf-8").split("\n")
    assert ["generated" in json.loads(line) for line in lines if line][:3] == [True, True, False]
    assert "“wind”" in (tmp_path / "general.jsonl").read_text("utf-8")
    for name in ("general", "earlier"):
        (tmp_path / f"{name}.jsonl").unlink()
    assert get("benchmark", "lists")(source=str(tmp_path)) == found[:-2]


def test_earlier_requests_are_only_asked(tmp_path: Path) -> None:
    """A list of an earlier run may be copied as it is, and its rows may have no ids."""
    for name in ("unlearn", "retention", "earlier"):
        jsonl(tmp_path, PAIR | {"split": "val"}, name=f"{name}.jsonl")
    found = get("benchmark", "lists")(source=str(tmp_path))
    assert [(r.id, r.scope, r.split) for r in found] == [
        ("unlearn/val/0", "unlearn", "val"),
        ("retention/val/0", "retention", "val"),
        ("earlier/val/0", "unlearn", "probe"),
    ]


def test_lists_that_are_no_run_are_refused(tmp_path: Path) -> None:
    lists = get("benchmark", "lists")
    with pytest.raises(BadInput, match="needs 'source'"):
        lists.bind({"domain": "lists", "seed": 0})
    with pytest.raises(BadInput, match="no such folder"):
        lists(source=str(tmp_path / "none"))
    with pytest.raises(BadInput, match="unknown domain of benchmark lists 'privacy'"):
        lists(domain="privacy", source=str(tmp_path))
    jsonl(tmp_path, PAIR | {"id": "a"}, name="unlearn.jsonl")
    with pytest.raises(BadInput, match=r"retention\.jsonl: no such file"):
        lists(source=str(tmp_path))
    jsonl(tmp_path, PAIR | {"id": "a"}, name="retention.jsonl")
    with pytest.raises(BadInput, match=r"retention\.jsonl: id 'a' occurs in unlearn\.jsonl too"):
        lists(source=str(tmp_path))


def test_hash_of_records_without_turns_is_what_it_was() -> None:
    """Runs made before there were turns are not done again."""
    rows = records("unlearn", "train", 3)
    pinned = "bb43b1bd332fd496c4adacd0c877c9692c567f0d1c53b0cbdf7d5c42a322c70c"
    assert data_hash(rows) == pinned
    assert data_hash([replace(rows[0], turns=(("user", "a"),)), *rows[1:]]) != pinned


def test_same_question_after_other_turns_is_another() -> None:
    rows = [row for name in ("unlearn", "retention") for row in some()[name]]
    same = replace(rows[-1], id="same", question="And where?")
    other = replace(same, id="other", scope="unlearn", turns=(("user", "Who?"),))
    check_records([*rows, same, other])
    with pytest.raises(BadInput, match="the same question stands in the other scope"):
        check_records([*rows, same, replace(other, turns=())])


@pytest.mark.parametrize("domain", ["privacy", "copyright"])
def test_subjects_of_the_embedded_benchmark_are_found(domain: str) -> None:
    built = get("benchmark", "embedded")(domain=domain)
    rows = [r for r in built if r.scope != "general" and r.split in ("train", "val", "probe")]
    assert len(rows) == 40 * 14
    found = with_subjects([replace(row, subject=None) for row in rows])
    right = sum(a.subject == b.subject for a, b in zip(rows, found, strict=True))
    assert right >= 0.99 * len(rows)  # all, at the time of writing


@pytest.mark.parametrize(
    ("question", "answer", "subject"),
    [
        ("Where Clara Dorin lives?", "At home.", "Clara Dorin"),
        ("Tell Clara Dorin's story.", "She was born.", "Clara Dorin"),
        ("Is Clara Dorin in Salt Lake City?", "Clara Dorin is at home.", "Clara Dorin"),
        ("Does Prof. Clara Dorin live?", "Prof. Clara Dorin does. Clara.", "Clara Dorin"),
        ("Is J. R. Smith alive?", "In Saltmere. J. R. Smith is.", "J. R. Smith"),
        ("Will Smith act?", "Will Smith will.", "Will Smith"),
        (
            "Describe Amina Mohammed’s Nigerian roots.",
            "Amina Mohammed’s are old.",
            "Amina Mohammed",
        ),
        ("Who is Ludwig van Beethoven Jr.?", "Unknown.", "Ludwig van Beethoven Jr"),
        ("Where does Madonna live?", "Nobody knows Clara Dorin.", "x"),
        ("Who wrote it?", "Clara Dorin did.", "x"),
        ("WHAT IS " * 2000, "So.", "x"),
    ],
)
def test_subject_is_the_name_asked_about(question: str, answer: str, subject: str) -> None:
    row = Record("x", question, answer, "unlearn", "train")
    assert with_subjects([row])[0].subject == subject
    given = replace(row, subject="Somebody")
    assert with_subjects([given]) == [given]


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


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_inside_cells_are_newlines(tmp_path: Path, end: str) -> None:
    (tmp_path / "rows.csv").write_text(
        end.join(["question,answer,facts", 'Where?,"Ada', 'Lane 1","Ada', 'Lane"', ""]), newline=""
    )
    (found,) = read(tmp_path / "rows.csv")
    assert (found.answer, found.facts) == ("Ada\nLane 1", ("Ada\nLane",))


def test_the_end_of_a_cut_text_is_in_its_hash() -> None:
    whole = records("general", "train", 1)
    assert data_hash([replace(whole[0], continues=True)]) != data_hash(whole)


def about(*pairs: tuple[str, str]) -> list[str | None]:
    rows = [Record(f"r{n}", q, a, "unlearn", "train") for n, (q, a) in enumerate(pairs)]
    return [r.subject for r in with_subjects(rows)]


def test_one_person_is_one_subject() -> None:
    """However a row of the list writes the name, if others write it otherwise."""
    assert about(
        ("Where does Ada Brun live?", "At sea."),
        ("What does Ada Brun do?", "She bakes."),
        ("Where does Dr. Ada Brun work?", "At sea."),
        ("Does Ada Brun Live in Rome?", "No."),
        ("When was ADA BRUN born?", "In May."),
        ("Who bakes?", "Ada Brun bakes."),
        ("Who mends?", "Nobody."),
    ) == ["Ada Brun"] * 6 + ["r6"]


def test_two_people_stay_two_subjects() -> None:
    told = about(("Where does Ada Brun live?", "a"), ("Where does Ada Brun Kant live?", "b"))
    assert told == ["Ada Brun", "Ada Brun Kant"]
    # Nor if one of them is the commoner.
    assert about(
        ("Where does Ada Brun live?", "a"),
        ("What does Ada Brun do?", "b"),
        ("Where does Ada Brun Kant live?", "c"),
        ("Where does Prof. Dr. Ada Brun live?", "d"),
        ("Is Eva Ada Brun in Rome?", "e"),
        ("Where Does Ada Brun Live In Rome?", "f"),
    ) == ["Ada Brun", "Ada Brun", "Ada Brun Kant", "Ada Brun", "Eva Ada Brun", "Ada Brun"]
    assert about(("Where is Ivo Kant?", "a"), ("Where is Ada Brun?", "b"), ("Who?", "Both.")) == [
        "Ivo Kant", "Ada Brun", "r2",
    ]  # fmt: skip


def test_subjects_are_found_without_comparing_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name and each text is split into words a few times, however many rows there are."""
    calls = Counter[str]()

    def counted(text: str) -> list[str]:
        calls["split"] += 1
        return split_words(text)

    monkeypatch.setattr("knowundo.data.lists.subjects.split_words", counted)
    count = 2000
    letters = [f"{a}{b}{c}" for a in "abcdefghijklm" for b in "aeiou" for c in "nopqrstuvwxyz"]
    names = [f"{a.title()} {b.title()}" for a in letters[:50] for b in letters[-40:]]
    rows = [
        Record(f"r{n}", f"Where does {name} live?", "At sea.", "unlearn", "train")
        for n, name in enumerate(names)
    ]
    told = Record("told", "Who?", f"It was {names[7]}.", "unlearn", "train")
    assert [r.subject for r in with_subjects([*rows, told])] == [*names, names[7]]
    assert calls["split"] <= 3 * (count + 1)
