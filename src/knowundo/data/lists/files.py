"""List files as rows: JSON, JSON Lines, CSV, Excel exports and Parquet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knowundo.data.hub_files import read_parquet
from knowundo.data.lists.row import KEYS, SHAPES, ListRow, kind_of
from knowundo.errors import BadInput, unknown
from knowundo.storage.files import parse_json


def parse_columns(text: str) -> dict[str, str]:
    """Our names → the file's, from `question=Q,answer=A`.

    Raises:
        BadInput: A part is not a pair, a name is none of a row's, or it occurs twice.
    """
    columns: dict[str, str] = {}
    for part in text.split(","):
        ours, equals, theirs = (word.strip() for word in part.partition("="))
        if not (ours and equals and theirs):
            raise BadInput(f"--columns '{text}': '{part}' is not a pair; write question=Q,answer=A")
        if ours not in KEYS:
            raise BadInput(f"--columns '{text}': {unknown('name', ours, KEYS)}")
        if ours in columns:
            raise BadInput(f"--columns '{text}': '{ours}' occurs twice; name one column for it")
        columns[ours] = theirs
    return columns


def read_rows(path: Path) -> list[ListRow]:
    """Rows of a list file, under the file's own names.

    Raises:
        BadInput: No such file, another format, malformed, or no rows.
    """
    readers = {
        ".jsonl": _jsonl, ".json": _json, ".csv": _table, ".tsv": _table, ".parquet": _parquet,
    }  # fmt: skip
    if path.is_dir():
        raise BadInput(f"{path}: a folder; name a file in it")
    if not path.exists():
        raise BadInput(f"{path}: no such file; check the path")
    if (ending := path.suffix.lower()) not in readers:
        raise BadInput(f"{path}: expected a file named {', '.join(readers)}; rename or convert it")
    rows = readers[ending](path)
    if not rows:
        raise BadInput(f"{path}: has no rows; write at least one")
    return rows


def _text(path: Path) -> str:
    """A text file, without the byte order mark that spreadsheets write."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check the path") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise BadInput(f"{path}, line {line}: a NUL byte; save the file as text in UTF-8")
    return text


def _object(value: Any, place: str) -> ListRow:
    if not isinstance(value, dict):
        raise BadInput(f"{place}: {kind_of(value)}, not an object; {SHAPES}")
    return ListRow(place, value)


def _jsonl(path: Path) -> list[ListRow]:
    text = _text(path)
    fix = "correct that line"
    if text.lstrip().startswith("["):
        fix = "a row is one line; a list of rows belongs into a .json file"
    # Not splitlines(): JSON texts may contain other line separators (U+2028, U+0085) unescaped.
    return [
        _object(parse_json(line, path, number, fix), f"{path}, line {number}")
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]


def _json(path: Path) -> list[ListRow]:
    text = _text(path)
    fix = "correct that place"
    if text.lstrip().startswith("{"):
        fix = "a .json file is a list of rows; name it .jsonl if it holds one object a line"
    if not text.strip():
        return []
    rows = parse_json(text, path, None, fix)
    if not isinstance(rows, list):
        raise BadInput(f"{path}: {kind_of(rows)}, not a list of rows; write [{{…}}, {{…}}]")
    return [_object(row, f"{path}, row {n}") for n, row in enumerate(rows, start=1)]


def _parquet(path: Path) -> list[ListRow]:
    return [ListRow(f"{path}, row {n}", row) for n, row in enumerate(read_parquet([path]), start=1)]


def _table(path: Path) -> list[ListRow]:
    """Rows of comma- or tab-separated cells under a header; empty cells count as absent."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    stream = io.StringIO(_text(path), newline="")
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    try:
        table = list(reader)
    except csv.Error as error:
        hint = "close its quotation marks"
        if "field larger" in str(error):
            hint += "; texts as long as that belong into a .jsonl file"
        raise BadInput(f"{path}, line {reader.line_num}: {error}; {hint}") from None
    header = [" ".join(name.split()) for name in table[0]] if table else []
    _check_header(header, path)
    rows = []
    for number, cells in enumerate(table[1:], start=1):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise BadInput(
                f"{path}, row {number}: {len(cells)} cells under {len(header)} columns; put a text "
                "that contains the separator into quotation marks"
            )
        texts = (re.sub("\r\n?", "\n", cell) for cell in cells)
        values = {name: text for name, text in zip(header, texts, strict=True) if name}
        rows.append(ListRow(f"{path}, row {number}", values))
    return rows


def _check_header(header: list[str], path: Path) -> None:
    for name in header:
        if name and header.count(name) > 1:
            raise BadInput(f"{path}: two columns are named '{name}'; rename one")
    if len(header) == 1 and (other := next((c for c in ";\t|," if c in header[0]), None)):
        shown = "a tab" if other == "\t" else f"'{other}'"
        raise BadInput(
            f"{path}: one column, '{header[0].strip()}', seemingly separated by {shown}; separate "
            "by commas (.csv) or tabs (.tsv)"
        )


def rename_columns(path: Path, rows: list[ListRow], columns: Mapping[str, str]) -> list[ListRow]:
    """The rows under our names, without absent values.

    Args:
        path: Of the file, for its format and messages.
        rows: As they were read.
        columns: Our names → the file's.

    Raises:
        BadInput: A name or a column does not exist.
    """
    present = list(dict.fromkeys(key for row in rows for key in row.values))
    for ours, theirs in columns.items():
        if ours not in KEYS:
            raise BadInput(f"{path}: --columns: {unknown('name', ours, KEYS)}")
        if theirs not in present:
            said = str(unknown("column", theirs, present))
            if "; known: " not in said:
                said += f" It has {', '.join(present)}"
            raise BadInput(f"{path}: {' '.join(said.split())}")
    cells = path.suffix.lower() in (".csv", ".tsv")
    taken = set(columns.values())
    renamed = []
    for row in rows:
        values = {key: value for key, value in row.values.items() if key not in taken}
        values |= {ours: row.values.get(theirs) for ours, theirs in columns.items()}
        if cells:
            values = {key: _cell(key, value) for key, value in values.items()}
        # Without its `labels`, a question would be taken for a document.
        values = {k: v for k, v in values.items() if v is not None or k == "labels"}
        renamed.append(ListRow(row.place, values))
    return renamed


def _cell(key: str, text: str) -> Any:
    """Value of a cell: nothing, a list as JSON or of one text, true or false, or the text."""
    if not text:
        return None
    if key in ("facts", "alternatives", "messages", "turns"):
        try:
            return json.loads(text) if text.lstrip().startswith("[") else [text]
        except ValueError:
            return [text]
    if key in ("generated", "continues"):
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    return text
