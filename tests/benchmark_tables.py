"""Files of a public benchmark, invented and written in the layout of its authors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knowundo.data.records import Record
from knowundo.registry import get


def write_tables(folder: Path, tables: Mapping[str, Any], *, ending: str = "json") -> None:
    """Write each table, a list of rows, as `name.json` or, an object a line, `name.jsonl`."""
    for name, rows in tables.items():
        file = folder / f"{name}.{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows) if ending == "jsonl" else None
        file.write_text(json.dumps(rows) if lines is None else lines)


def build(name: str, source: Path, **arguments: Any) -> list[Record]:
    """The records of a benchmark from a folder; its arguments are checked."""
    entry = get("benchmark", name)
    records: list[Record] = entry(**entry.bind({"source": str(source)} | arguments))
    return records
