"""The KnowUnDo benchmark (Tian et al. 2024, arXiv:2407.01920), read from a folder; licence MIT.

Layout: `<source>/<domain>/{unlearn,retention}.json`, each a list with one object that holds
`train` and `val`, lists of `{"text": question, "labels": answer}`, as on the hub
(zjunlp/KnowUnDo).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from knowundo.artifacts import read_json
from knowundo.benchmarks.embedded import general_records
from knowundo.errors import BadInput, unknown
from knowundo.records import Record
from knowundo.registry import benchmark

DOMAINS = ("copyright", "privacy")
_NAME = re.compile(
    r"\b[A-ZÀ-Þ][\w'’.-]*(?: (?:[A-ZÀ-Þ][\w'’.-]*|de|da|del|der|van|von|bin|al|la))+"
)


def _read_scope(path: Path, scope: str) -> list[Record]:
    data = read_json(path)
    if not (isinstance(data, list) and len(data) == 1 and isinstance(data[0], dict)):
        raise BadInput(f"{path}: expected a list with one object that holds 'train' and 'val'")
    records = []
    for split in ("train", "val"):
        rows = data[0].get(split)
        if not isinstance(rows, list) or not rows:
            raise BadInput(f"{path}: '{split}' is missing or empty; it must list rows")
        for number, row in enumerate(rows):
            records.append(_read_row(row, f"{scope}/{split}/{number}", path, scope, split))
    return records


def _read_row(row: Any, name: str, path: Path, scope: str, split: str) -> Record:
    for key in ("text", "labels"):
        value = row.get(key) if isinstance(row, dict) else None
        if not isinstance(value, str) or not value.strip():
            raise BadInput(
                f"{path}, row {name}: '{key}' is missing or empty; a row is "
                '{"text": question, "labels": answer}'
            )
    return Record(name, row["text"], row["labels"], scope, split)


def _names(text: str) -> list[str]:
    text = re.sub(r"['’]s\b", "", text)
    return [match.group().rstrip(".") for match in _NAME.finditer(text)]


def find_subjects(records: list[Record]) -> list[Record]:
    """Give each record the most frequent capitalised name that it contains.

    The files do not name the author a row is about. Rows about one author stand together, so a
    row without a known name takes the subject of the row before it in its list.
    """
    counts = Counter(name for r in records for name in set(_names(r.question + " " + r.answer)))
    found: list[Record] = []
    last: dict[tuple[str, str], str | None] = {}
    for record in records:
        names = _names(record.question) or _names(record.answer)
        best = max(names, key=lambda name: (counts[name], name), default=None)
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
    counts={"privacy": {"unlearn": (400, 110), "retention": (441, 108)}},
)
def knowundo(
    *, domain: str, source: str | None = None, seed: int = 0, subjects: int | None = None
) -> list[Record]:
    """KnowUnDo's own files, with the embedded base's general records beside them.

    Args:
        domain: `privacy` or `copyright`.
        source: folder that holds `<domain>/unlearn.json` and `<domain>/retention.json`.
        seed: of the general records.
        subjects: keep only the first so many subjects.

    Raises:
        BadInput: no source, a missing or malformed file, an empty list or answer.
    """
    if domain not in DOMAINS:
        raise unknown("domain of benchmark knowundo", domain, DOMAINS)
    if source is None:
        raise BadInput("data.source: name the folder that holds <domain>/unlearn.json")
    if subjects is not None and subjects < 1:
        raise BadInput(f"data.subjects: {subjects} is less than 1; choose a larger number")
    folder = Path(source) / domain
    records = _read_scope(folder / "unlearn.json", "unlearn")
    records += _read_scope(folder / "retention.json", "retention")
    records = find_subjects(records)
    if subjects is not None:
        kept = list(dict.fromkeys(record.subject for record in records))[:subjects]
        records = [record for record in records if record.subject in kept]
    return records + general_records(seed)
