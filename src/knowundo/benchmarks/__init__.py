"""Benchmarks: one record-builder a file; any of them can be written as KnowUnDo's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from knowundo.artifacts import write_json
from knowundo.errors import BadInput
from knowundo.records import Record, select


def export_knowundo(
    records: Sequence[Record], folder: Path, *, force: bool = False
) -> dict[Path, int]:
    """Write `unlearn.json` and `retention.json` as zjunlp/KnowUnDo holds them.

    Each is a list with one object that holds `train` and `val`, lists of
    `{"text": question, "labels": answer}`. Other scopes and splits have no place there.

    Returns:
        Rows written, by file.

    Raises:
        BadInput: a file exists and `force` is off; nothing is written then.
    """
    files = {scope: folder / f"{scope}.json" for scope in ("unlearn", "retention")}
    for file in files.values():
        if file.exists() and not force:
            raise BadInput(f"{file}: exists already; choose another --out or add --force")
    written = {}
    for scope, file in files.items():
        rows = {
            split: [
                {"text": record.question, "labels": record.answer}
                for record in select(records, scope=scope, split=split)
            ]
            for split in ("train", "val")
        }
        write_json(file, [rows])
        written[file] = sum(map(len, rows.values()))
    return written
