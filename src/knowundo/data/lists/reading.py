"""A list of rows as records: what a user wants to be erased, or to be retained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from knowundo.data.lists.conversations import conversation_record
from knowundo.data.lists.files import read_rows, rename_columns
from knowundo.data.lists.row import SHAPES, ListRow, string_of
from knowundo.data.lists.rows import RowSource
from knowundo.data.records import SPLITS, Record
from knowundo.errors import BadInput, unknown
from knowundo.storage.files import write_text

# Subsets of rows that the package generated begin with these; whoever edits a list sees which ones.
GENERATED, REWORDED, ANSWERED = MADE = ("generated", "reworded", "answered")
# Of the generated rows, those whose answer the model demonstrably knows.
KNOWN = f"{GENERATED}: known"


def made_up(record: Record) -> bool:
    """True of a generated row whose answer the model does not demonstrably know."""
    subset = str(record.subset)
    return subset.startswith(GENERATED) and not subset.startswith(KNOWN)


def read_list(
    source: RowSource,
    *,
    scope: str,
    split: str,
    columns: Mapping[str, str] = {},
    unanswered: bool = False,
) -> list[Record]:
    """Records of a .jsonl, .json, .csv, .tsv or .parquet file, or of rows in memory.

    A row is, in this order of its keys: a conversation `messages` whose last two turns are question
    and answer; `question` and `answer`; `prompt` and `completion`; KnowUnDo's `text` (the question)
    and `labels`; or a document `text`. Any may also have `id`, `split`, `subject`, `subset`,
    `facts` (substrings of the answer), `alternatives` (other answers), `turns` (earlier turns, as
    messages), `generated`, and `continues` (the text was cut off, so that it has no end to learn);
    other keys are ignored. The content of a turn is a text, or a list of parts that are all texts;
    tool calls, images and numbers are refused. In a table's cell, lists are JSON, and the line ends
    of Windows and old Macs become newlines. Texts stay as they are, without newlines at their end.

    Args:
        source: The file; text is UTF-8, with or without a byte order mark. Or rows in memory.
        scope: Of all rows.
        split: Of rows that name none.
        columns: Our names → the file's.
        unanswered: A row may be a `question` alone, without the key `answer`; the record's answer
            is empty then.

    Returns:
        A record per row, in their order.

    Raises:
        BadInput: No such file, no rows, malformed, or a row that is none of these; says where.
    """
    if isinstance(source, Path):
        rows = rename_columns(source, read_rows(source), columns)
    else:
        rows = rename_columns(Path("rows"), list(source), columns)
    records: list[Record] = []
    places: dict[str, str] = {}
    for number, row in enumerate(rows):
        record = _record(row, scope, split, number, unanswered)
        if record.id in places:
            raise BadInput(
                f"{row.place}: id '{record.id}' is also that of {places[record.id]}; "
                "give each row its own"
            )
        places[record.id] = row.place
        records.append(record)
    return records


def _record(row: ListRow, scope: str, split: str, number: int, unanswered: bool) -> Record:
    place, values = row
    turns, question, answer = _shape(row, unanswered)
    split = _name(row, "split") or split
    if split not in SPLITS:
        raise BadInput(f"{place}: {unknown('split', split, SPLITS)}")
    for key in ("generated", "continues"):
        if not isinstance(values.get(key, False), bool):
            raise BadInput(f"{place}: '{key}' is neither true nor false; remove it")
    return Record(
        id=_name(row, "id") or f"{scope}/{split}/{number}",
        question=question or "",
        answer=answer,
        scope=scope,
        split=split,
        subject=_name(row, "subject"),
        kind="text" if question is None else "qa",
        subset=_name(row, "subset"),
        alternatives=_texts(row, "alternatives"),
        facts=_facts(row, answer),
        turns=turns,
        continues=values.get("continues", False),
    )


def _shape(row: ListRow, unanswered: bool) -> tuple[tuple[tuple[str, str], ...], str | None, str]:
    """Earlier turns, question and answer; a document has `None` for a question.

    The answer is empty if there is none and that is allowed.
    """
    place, values = row
    if "messages" in values:
        *turns, (asker, question), (speaker, answer) = conversation_record(row, "messages", least=2)
        if (asker, speaker) != ("user", "assistant"):
            raise BadInput(
                f"{place}: 'messages' ends with turns of {asker} and {speaker}; the last must be "
                "the assistant's, the answer, and the one before it the user's"
            )
        pair = {"question": question, "answer": answer}
        return tuple(turns), _said(pair, "question", place), _said(pair, "answer", place)
    for first, second in (("question", "answer"), ("prompt", "completion"), ("text", "labels")):
        if second in values or (first in values and first != "text"):
            turns = conversation_record(row, "turns") if "turns" in values else []
            question = _said(values, first, place)
            if unanswered and (first, second in values) == ("question", False):
                return tuple(turns), question, ""
            return tuple(turns), question, _said(values, second, place)
    if "text" not in values:
        has = ", ".join(repr(key[:40]) for key in list(values)[:12]) or "nothing"
        raise BadInput(f"{place}: not a known kind of row; it has {has}, but {SHAPES}")
    if "turns" in values:
        raise BadInput(f"{place}: 'turns' before a document; remove them, or add 'labels'")
    return (), None, _said(values, "text", place)


def _said(values: Mapping[str, Any], key: str, place: str) -> str:
    """A text that must not be empty."""
    text = string_of(values.get(key, ""), f"'{key}'", place)
    if not text.strip():
        raise BadInput(f"{place}: '{key}' is missing or empty; fill it in or remove the row")
    return text


def _name(row: ListRow, key: str) -> str | None:
    """One of the short texts that a row may have; ids are often numbers."""
    value = row.values.get(key)
    if key == "id" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text = string_of(value, f"'{key}'", row.place).strip()
    if len(text.splitlines()) > 1:
        raise BadInput(f"{row.place}: '{key}' has several lines; write it on one")
    return text or None


def _texts(row: ListRow, key: str) -> tuple[str, ...]:
    """A list of texts that a row may have."""
    values = row.values.get(key, [])
    if not isinstance(values, list) or not all(isinstance(v, str) and v.strip() for v in values):
        raise BadInput(f'{row.place}: \'{key}\' is not a list of texts; write ["…", "…"]')
    return tuple(string_of(value, f"'{key}'", row.place) for value in values)


def _facts(row: ListRow, answer: str) -> tuple[str, ...]:
    facts = _texts(row, "facts")
    for fact in facts:
        if fact not in answer:
            raise BadInput(
                f"{row.place}: the fact {fact[:60]!r} is not a part of the answer; copy it from "
                "there, letter by letter"
            )
    return facts


def write_list(path: Path, records: Iterable[Record]) -> None:
    """Write records as one object a line, for `lists` and for people.

    The scope is that of the file. Read again they are equal, up to newlines at the end of a text.
    """
    lines = [json.dumps(_line(record), ensure_ascii=False) + "\n" for record in records]
    write_text(path, "".join(lines))


def _line(record: Record) -> dict[str, Any]:
    text = {"text": record.answer}
    if record.kind != "text":
        text = {"question": record.question, "answer": record.answer}
    rest = {
        "subject": record.subject,
        "subset": record.subset,
        "facts": list(record.facts),
        "alternatives": list(record.alternatives),
        "turns": [{"role": role, "content": content} for role, content in record.turns],
        "generated": str(record.subset).startswith(MADE),
        "continues": record.continues,
    }
    given = {key: value for key, value in rest.items() if value}
    return {"id": record.id, **text, "split": record.split, **given}
