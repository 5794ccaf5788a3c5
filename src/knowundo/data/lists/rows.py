"""Rows that a Python program hands over, in the place of a list file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from knowundo.data.lists.row import KEYS, SHAPES, ListRow, kind_of
from knowundo.errors import BadInput
from knowundo.storage.files import can_exist

# A row: an object of the keys that a file's rows have; question and answer; a question alone, which
# ends with a question mark; or any other text, a document.
Row = str | tuple[str, str] | Mapping[str, Any]
# Rows as `read_list` takes them: a file, or rows with their places.
RowSource = Path | tuple[ListRow, ...]

# Question marks: Latin, Greek (also a semicolon, which is no sign of a question elsewhere), Arabic,
# Armenian, Ethiopic, of full width, in vertical text, small, doubled, and with an exclamation mark.
_MARKS = "?\u037e\u061f\u055e\u1367\uff1f\ufe16\ufe56\u2047\u2048\u2049\u203d\u2e2e\ua60f\u1945"
# What may follow a question mark.
_CLOSING = " \t\r\n\"'”’»)]」』"


def is_question(text: str) -> bool:
    """True if a text ends with a question mark of any script."""
    return text.rstrip(_CLOSING).endswith(tuple(_MARKS))


def row_source(given: str | Path | Sequence[Row], name: str) -> RowSource:
    """A file, or rows with their places, from what a program gave.

    A text alone is a path if it has neither a space nor a question mark at its end, or if there is
    such a file; otherwise it is a single row.

    Args:
        given: A path, or rows.
        name: What messages call them.

    Raises:
        BadInput: No rows, or one that is none.
    """
    if isinstance(given, Path):
        return given
    if isinstance(given, str):
        there = can_exist(given) and Path(given).is_file()
        if there or not (is_question(given) or any(map(str.isspace, given))):
            return Path(given)
        given = [given]
    if isinstance(given, Mapping) or not isinstance(given, Sequence):
        raise BadInput(f"{name}: {kind_of(given)}, not a list of rows; hand in [row, …], or a path")
    rows = [ListRow(place := f"{name}, row {n}", _values(row, place)) for n, row in
            enumerate(given, start=1)]  # fmt: skip
    if not rows:
        raise BadInput(f"{name}: has no rows; hand in at least one")
    return tuple(rows)


def _values(row: Any, place: str) -> dict[str, Any]:
    """A row under the keys of a list file; other keys are ignored, as there."""
    if isinstance(row, str):
        return {"question" if is_question(row) else "text": row}
    if isinstance(row, Mapping):
        return {key: value for key, value in row.items() if key in KEYS}
    if isinstance(row, tuple) and len(row) == 2:
        return {"question": row[0], "answer": row[1]}
    raise BadInput(
        f"{place}: {kind_of(row)}, not a row; a row is a text, (question, answer), or an object: "
        f"{SHAPES}"
    )
