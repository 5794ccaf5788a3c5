"""LUME (Ramakrishna et al. 2025, arXiv:2502.15097), the data of SemEval-2025 task 4.

Licence Apache-2.0. Its repository has `data/forget.jsonl` and `data/retain.jsonl`; the release of
the task has `forget_train`, `forget_validation` and so on, and texts for membership inference.
A row is `{"id", "input", "output", "task"}`; ids end in `sc` (a text to be continued) or `qa`, and
a number.
"""

from __future__ import annotations

import re
from dataclasses import replace

from knowundo.data.benchmark_files import BenchmarkFiles, TableRow
from knowundo.data.hub_files import ResolvedRecords
from knowundo.data.lists.subjects import PERSON
from knowundo.data.records import Record
from knowundo.errors import BadInput, unknown
from knowundo.registry import benchmark

DOMAINS = ("all", "creative", "pii", "real")
REPOSITORY = "llmunlearningsemeval2025organization/semeval25-unlearning-dataset-public"
TASKS = {"Task1": "creative", "Task2": "pii", "Task3": "real"}
_ID = re.compile(r'"?(?P<document>.+?)"?(?P<kind>sc|qa)(?P<number>\d+)')


def _record(row: TableRow, scope: str, split: str) -> Record:
    """A question, or a beginning that is continued; the subset is task and kind."""
    told = row.text("id")
    if (found := _ID.fullmatch(told)) is None:
        raise BadInput(f"{row.place}: id '{told}' does not end in sc or qa and a number")
    if (task := row.text("task")) not in TASKS:
        raise BadInput(f"{row.place}: {unknown('task', task, TASKS)}")
    return Record(
        f"{scope}/{split}/{found['document']}/{found['kind']}{found['number']}",
        row.text("input"),
        row.text("output"),
        scope,
        split,
        found["document"],
        kind="completion" if found["kind"] == "sc" else "qa",
        subset=f"{TASKS[task]} {found['kind']}",
    )


def _named(records: list[Record]) -> list[Record]:
    """Rows of an invented person with the person's name as subject: it begins the biography."""
    names: dict[str | None, str] = {}
    for record in records:
        first = PERSON.match(record.question)
        if record.subset == "pii sc" and first is not None:
            names[record.subject] = first.group()
    return [replace(r, subject=names.get(r.subject, r.subject)) for r in records]


def _membership(files: BenchmarkFiles) -> list[Record]:
    """Texts that the target model saw, and others, where the files have them."""
    return [
        Record(
            name := f"unlearn/{split}/mia/{number}",
            "",
            row.text("document"),
            "unlearn",
            split,
            name,
            kind="text",
            subset="mia",
        )
        for table, split in (("member", "probe"), ("nonmember", "holdout"))
        for number, row in enumerate(files.maybe(f"mia_data/{table}"))
    ]


@benchmark(
    domains=DOMAINS,
    licence="Apache-2.0",
    citation="Ramakrishna et al. 2025, arXiv:2502.15097",
    counts={"all": {"unlearn": (2732, 0), "retention": (2734, 0)}},
    size="2,732 forget and 2,734 retain rows; 2 MB",
    requires="a folder with forget.jsonl and retain.jsonl of amazon-science/lume-llm-unlearning "
    "on GitHub, or the release of SemEval-2025 task 4 on the hub (registration)",
)
def lume(
    *,
    domain: str,
    source: str | None = None,
    revision: str | None = None,
    seed: int = 0,
    subjects: int | None = None,
) -> list[Record]:
    """LUME's own files: invented stories, invented people with private data, real people.

    Args:
        domain: `all` tasks, or one: `creative`, `pii` or `real`.
        source: Folder with `forget` and `retain`, or with `forget_train`, `forget_validation` (as
            split val) and so on. If `None`, the hub.
        revision: Commit on the hub. If `None`, the newest.
        seed: Not used, because the rows are given.
        subjects: Use only the first so many documents of either scope. If `None`, all.

    Raises:
        BadInput: No files, or a malformed row.
    """
    if domain not in DOMAINS:
        raise unknown("domain of benchmark lume", domain, DOMAINS)
    BenchmarkFiles.check_subjects(subjects)
    files = BenchmarkFiles.find(
        source, REPOSITORY, revision=revision, patterns=["data/*", "mia_data/*"], inner=("data",)
    )
    records: list[Record] = []
    for scope, named in (("unlearn", "forget"), ("retention", "retain")):
        train = files.rows(named, f"{named}_train", f"data/{named}_train")
        val = files.maybe(f"{named}_validation", f"data/{named}_validation")
        found = [_record(row, scope, "train") for row in train]
        found += [_record(row, scope, "val") for row in val]
        found = [r for r in found if domain in ("all", str(r.subset).split()[0])]
        kept = set(list(dict.fromkeys(r.subject for r in found))[:subjects])
        records += _named([r for r in found if r.subject in kept])
    return ResolvedRecords([*records, *_membership(files)], files.commits)
