"""The KnowUnDo benchmark (Tian et al. 2024, arXiv:2407.01920), from the hub or a folder.

Licence MIT. On the hub (zjunlp/KnowUnDo) a domain is a folder with a table for each scope; its one
row has `train` and `val`, lists of `{"text": question, "labels": answer}`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from knowundo.data.benchmark_files import BenchmarkFiles
from knowundo.data.benchmarks.embedded import general_records
from knowundo.data.hub_files import Found, ResolvedRecords, read_rows
from knowundo.data.lists.subjects import CAPITALISED, PERSON
from knowundo.data.records import Record
from knowundo.errors import BadInput, unknown
from knowundo.registry import benchmark

DOMAINS = ("copyright", "privacy")
REPOSITORY = "zjunlp/KnowUnDo"
# Capitalised words, with function words between them; “I” is no word of a title.
_TITLE = re.compile(
    rf"\b{CAPITALISED}(?:,? (?:(?:and|of|the|in|to|a|for|on|an|with) )*(?!I\b){CAPITALISED})+"
)
_QUOTED = re.compile("[\"“]([^\"“”]{3,80}?)[,.]?[\"”]|(?<!\\w)['‘]([^'‘’]{3,80}?)[,.]?['’](?!\\w)")


def _tables(folder: Path, scope: str) -> dict[str, Found | None]:
    """The rows of each split of a scope, in any of the supported layouts."""
    whole = read_rows(folder / scope)
    if whole is None:
        return {split: read_rows(folder / f"{scope}_{split}") for split in ("train", "val")}
    if len(whole.rows) != 1 or not isinstance(whole.rows[0], dict):
        raise BadInput(
            f"{whole.place}: expected a list with one object (one row) with 'train' and 'val'"
        )
    return {split: Found(whole.rows[0].get(split) or [], whole.place) for split in ("train", "val")}


def _read_scope(folder: Path, scope: str) -> list[Record]:
    tables = _tables(folder, scope)
    if not any(tables.values()):
        raise BadInput(
            f"{folder}: has no {scope} table; looked for {scope}.json, {scope}_train.json, "
            f"{scope}*.parquet, and what save_to_disk writes; check data.source"
        )
    records = []
    for split, table in tables.items():
        rows, place = table or ([], folder / f"{scope}_{split}.json")
        if not isinstance(rows, list) or not rows:
            raise BadInput(f"{place}: '{split}' is missing or empty; it must list rows")
        for number, row in enumerate(rows):
            records.append(_read_row(row, f"{scope}/{split}/{number}", place))
    return records


def _read_row(row: Any, name: str, place: Path) -> Record:
    for key in ("text", "labels"):
        value = row.get(key) if isinstance(row, dict) else None
        if not isinstance(value, str) or not value.strip():
            raise BadInput(
                f"{place}, row {name}: '{key}' is missing or empty; a row is "
                '{"text": question, "labels": answer}'
            )
    scope, split, _ = name.split("/")
    return Record(name, row["text"], row["labels"], scope, split)


def _names(text: str, domain: str) -> list[str]:
    """Possible subjects of a text: people, or titles, quoted and not."""
    plain = re.sub(r"['’]s\b", "", text)
    if domain == "privacy":
        return [match.group().rstrip(".") for match in PERSON.finditer(plain)]
    quoted = [next(filter(None, match)).strip() for match in _QUOTED.findall(text)]
    titles = [match.group().rstrip(".") for match in _TITLE.finditer(plain)]
    # The first word of a sentence ("In The …", "Extend The …") is no part of the title.
    return [*quoted, *titles, *(title.split(None, 1)[1] for title in titles)]


def find_subjects(records: list[Record], domain: str) -> list[Record]:
    """Give each record the most frequent name (or title) that its question contains.

    The files do not name the author or book that a row is about. Rows about one subject are
    adjacent, so a row without a frequent name gets the subject of the row before it in its list.
    """
    texts = (r.question + " " + r.answer for r in records)
    counts = Counter(name for text in texts for name in set(_names(text, domain)))
    found: list[Record] = []
    last: dict[tuple[str, str], str | None] = {}
    for record in records:
        names = _names(record.question, domain) or _names(record.answer, domain)
        best = max(names, key=lambda name: (counts[name], len(name), name), default=None)
        place = (record.scope, record.split)
        if best is None or counts[best] < 4:
            best = last.get(place, best)
        last[place] = best
        found.append(replace(record, subject=best or record.id))
    return found


@benchmark(
    domains=DOMAINS,
    licence="MIT",
    citation="Tian et al. 2024, arXiv:2407.01920",
    facts_of_base="embedded",
    counts={"privacy": {"unlearn": (400, 110), "retention": (441, 108)}},
    size="privacy: 1,059 questions on 60 people; copyright: 1,590 on 30 books",
    requires="zjunlp/KnowUnDo on the hub, or a folder with its files",
)
def knowundo(
    *,
    domain: str,
    source: str | None = None,
    revision: str | None = None,
    seed: int = 0,
    subjects: int | None = None,
) -> list[Record]:
    """KnowUnDo's own files, with the embedded base's general records beside them.

    Args:
        domain: `privacy` or `copyright`.
        source: Folder with the folders of the domains, or with the tables of one domain, as JSON,
            JSONL, Parquet or in the format of datasets' `save_to_disk`. If `None`, the hub.
        revision: Commit on the hub. If `None`, the newest.
        seed: Of the general records.
        subjects: Use only the first so many subjects. If `None`, all.

    Raises:
        BadInput: No files, a malformed one, an empty list or answer.
    """
    if domain not in DOMAINS:
        raise unknown("domain of benchmark knowundo", domain, DOMAINS)
    BenchmarkFiles.check_subjects(subjects)
    files = BenchmarkFiles.find(
        source, REPOSITORY, revision=revision, patterns=[f"{domain}/*"], inner=(domain,)
    )
    folder = files.folder if source is not None else files.folder / domain
    records = [*_read_scope(folder, "unlearn"), *_read_scope(folder, "retention")]
    records = find_subjects(records, domain)
    if subjects is not None:
        kept = list(dict.fromkeys(record.subject for record in records))[:subjects]
        records = [record for record in records if record.subject in kept]
    return ResolvedRecords(records + general_records(seed), files.commits)
