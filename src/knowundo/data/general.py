"""General records from elsewhere: what the base knows beside both scopes.

KnowUnDo takes them from `llmunlearn/unlearn_dataset` (Yao et al. 2024, arXiv:2402.15159; config
`general`, split `retain`).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from knowundo.data.hub_files import ResolvedRecords, from_hub, read_parquet, read_rows
from knowundo.data.records import UNREADABLE, Record, readable
from knowundo.errors import BadInput
from knowundo.storage.files import read_json, read_jsonl, read_text

# No training sees more: two epochs of KnowUnDo's unlearn rows are 954.
TRAIN, VAL = 1000, 100
# About 250 tokens. KnowUnDo takes each text's first 256 tokens.
CHARACTERS = 1000


def _tables(
    source: str, revision: str | None
) -> tuple[list[Any], list[Any] | None, dict[str, str]]:
    """Rows of the retain split, of the evaluation split if there is one, and the hub's commits."""
    path, commits = Path(source), dict[str, str]()
    if path.is_file():
        return _file(path), None, commits
    if not path.is_dir():
        if path.suffix or source.count("/") != 1 or source.startswith((".", "/")):
            raise BadInput(f"data.general '{source}': no such file or folder; check the path")
        path, commits = from_hub(source, revision=revision, patterns=["general/*"])
    for folder in (path / "general", path):
        if (retain := read_rows(folder / "retain")) is not None:
            evaluation = read_rows(folder / "evaluation")
            return retain.rows, evaluation and evaluation.rows, commits
    raise BadInput(
        f"data.general '{source}': no retain.json, retain.jsonl or retain*.parquet there or in "
        "general/; name a file of texts, or that folder"
    )


def _file(path: Path) -> list[Any]:
    readers = {".json": read_json, ".jsonl": read_jsonl, ".parquet": lambda p: read_parquet([p])}
    if path.suffix == ".txt":
        return _texts(read_text(path).removeprefix("\ufeff"))
    if path.suffix not in readers:
        raise BadInput(f"{path}: expected .json, .jsonl, .parquet or .txt")
    rows = readers[path.suffix](path)
    if not isinstance(rows, list):
        raise BadInput(f"{path}: expected a list of texts")
    return rows


def _texts(text: str) -> list[str]:
    """Texts separated by blank lines; if there are none, each line is a text."""
    found = [part for part in re.split(r"\n[ \t]*\n", text) if part.strip()]
    return found if len(found) > 1 else [line for line in text.split("\n") if line.strip()]


def _piece(text: str) -> str:
    """The first `CHARACTERS` of a text, cut at a space if there is one."""
    return text if len(text) <= CHARACTERS else text[:CHARACTERS].rsplit(None, 1)[0]


def _record(row: Any, number: int, split: str, source: str) -> Record:
    name = f"general/{split}/{number}"
    if isinstance(row, str):
        row = {"text": row}
    text, answer = (row.get("text"), row.get("labels")) if isinstance(row, dict) else (None, None)
    for said in (text, answer):
        if isinstance(said, str) and not readable(said):
            raise BadInput(f"{source}, row {name}: {UNREADABLE}")
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f'{source}, row {name}: no text; a row is a text, or {{"text": …}}')
    if isinstance(answer, str) and answer.strip():
        return Record(name, text, answer, "general", split, subset="facts")
    text = text.strip()
    record = Record(name, "", _piece(text), "general", split, kind="text", subset="text")
    return replace(record, continues=record.answer != text)


def read_general(source: str, *, revision: str | None = None) -> ResolvedRecords:
    """Records of scope `general`; without an evaluation split, every tenth row becomes val.

    Args:
        source: A dataset on the hub, a folder with `retain` (and `evaluation`) as JSON, JSONL,
            Parquet or in the format of datasets' `save_to_disk`, or one file of texts (in a .txt
            file, blank lines separate them, or else line ends). A row may also be KnowUnDo's
            `{"text": question, "labels": answer}`. A text is cut after `CHARACTERS`.
        revision: Commit, tag or branch of the dataset on the hub. If `None`, the newest.

    Raises:
        BadInput: Nothing there, malformed, or fewer than two rows.
    """
    train, val, commits = _tables(source, revision)
    if val is None:
        train, val = [r for n, r in enumerate(train) if n % 10], train[::10]
    if not train or not val:
        raise BadInput(
            f"data.general '{source}': fewer than two texts; train and val need one each (in a "
            ".txt file, blank lines separate them, or else line ends)"
        )
    records = (
        _record(row, number, split, source)
        for split, rows in (("train", train[:TRAIN]), ("val", val[:VAL]))
        for number, row in enumerate(rows)
    )
    return ResolvedRecords(records, commits)
