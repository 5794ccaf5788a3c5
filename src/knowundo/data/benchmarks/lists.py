"""Lists of your own: rows that must go and rows that must stay, in files.

read_list(Path("rows.csv"), scope="unlearn", split="train", columns={"question": "Q"})
lists(source="folder")      the lists of a run, as `write_list` writes them and a user edits them
with_subjects(records)      the subject of each row that does not name one
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from knowundo.data.lists.reading import read_list
from knowundo.data.records import Record
from knowundo.errors import BadInput, unknown
from knowundo.registry import benchmark

DOMAINS = ("lists",)


@benchmark(
    domains=DOMAINS,
    licence="yours",
    citation="your own lists",
    size="any number of rows",
    requires="a folder with unlearn.jsonl and retention.jsonl",
)
def lists(*, domain: str = "lists", source: str, seed: int = 0) -> list[Record]:
    """Lists of your own: unlearn.jsonl, retention.jsonl, general.jsonl and earlier.jsonl.

    Args:
        domain: `lists`.
        source: Folder with unlearn.jsonl and retention.jsonl. It may also have general.jsonl, and
            earlier.jsonl: rows that earlier requests unlearned, which are asked again (as split
            `probe`, whatever the rows say) and never trained on.
        seed: Not used, because the rows are given.

    Raises:
        BadInput: Unknown domain, a list is missing or malformed, or an id occurs twice.
    """
    if domain not in DOMAINS:
        raise unknown("domain of benchmark lists", domain, DOMAINS)
    if not Path(source).is_dir():
        raise BadInput(f"data.source '{source}': no such folder; check the path")
    records: list[Record] = []
    owner: dict[str, Path] = {}
    for name in ("unlearn", "retention", "general", "earlier"):
        path = Path(source) / f"{name}.jsonl"
        if name in ("general", "earlier") and not path.exists():
            continue
        split = "probe" if name == "earlier" else "train"
        for record in read_list(path, scope=name, split=split):
            if name == "earlier":
                record = replace(record, scope="unlearn", split=split)
            if record.id in owner:
                raise BadInput(
                    f"{path}: id '{record.id}' occurs in {owner[record.id].name} too; "
                    "give each row its own"
                )
            owner[record.id] = path
            records.append(record)
    return records
