"""Lists of your own: rows that must go, rows that must stay, in the files such lists lie in.

read_list(Path("rows.csv"), scope="unlearn", split="train", columns={"question": "Q"})
lists(source="folder")      the lists of a run, as `write_list` writes them and a person edits them
with_subjects(records)      whom each row is about, where the rows do not say
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from knowundo.data.lists.reading import read_list
from knowundo.data.records import Record
from knowundo.errors import BadInput, unknown
from knowundo.registry import benchmark

DOMAINS = ("lists",)


@benchmark(domains=DOMAINS, licence="yours", citation="your own lists")
def lists(*, domain: str = "lists", source: str, seed: int = 0) -> list[Record]:
    """Lists of your own: unlearn.jsonl, retention.jsonl, general.jsonl and earlier.jsonl.

    Args:
        domain: `lists`.
        source: folder that holds unlearn.jsonl and retention.jsonl, and may hold general.jsonl
            and earlier.jsonl: what earlier requests made it unlearn, which is asked (split
            `probe`, whatever the rows say) and never trained on.
        seed: not used; the rows are given.

    Raises:
        BadInput: unknown domain, a list that is missing or malformed, an id that occurs twice.
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
