"""Records written in the file layout of KnowUnDo's repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from knowundo.data.records import Record, select
from knowundo.errors import BadInput
from knowundo.storage.files import write_json


def export_knowundo(
    domains: Mapping[Path, Sequence[Record]], *, force: bool = False
) -> dict[Path, int]:
    """Write `unlearn.json` and `retention.json` in the format of zjunlp/KnowUnDo.

    Each is a list with one object whose `train` and `val` are lists of
    `{"text": question, "labels": answer}`. The format has no other scopes and splits.

    Args:
        domains: Folder → records of one domain.
        force: Overwrite files.

    Returns:
        Number of rows by file.

    Raises:
        BadInput: A file exists and `force` is off; then nothing is written.
    """
    files = {
        folder / f"{scope}.json": [_rows(records, scope)]
        for folder, records in domains.items()
        for scope in ("unlearn", "retention")
    }
    for file in files:
        if file.exists() and not force:
            raise BadInput(f"{file}: exists already; choose another --out or add --force")
    for file, content in files.items():
        write_json(file, content)
    return {file: sum(map(len, content[0].values())) for file, content in files.items()}


def _rows(records: Sequence[Record], scope: str) -> dict[str, list[dict[str, str]]]:
    return {
        split: [
            {"text": record.question, "labels": record.answer}
            for record in select(records, scope=scope, split=split)
        ]
        for split in ("train", "val")
    }
