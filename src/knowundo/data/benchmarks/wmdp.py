"""WMDP (Li et al. 2024, arXiv:2403.03218): hazardous knowledge in biology and about computers.

Licence MIT. On the hub, cais/wmdp-corpora has a folder of Parquet for each corpus and cais/wmdp one
for the questions of each domain; the corpus of biology that must go is given on request only.
"""

from __future__ import annotations

from collections.abc import Sequence

from knowundo.data.benchmark_files import BenchmarkFiles, TableRow
from knowundo.data.choices import choice_record
from knowundo.data.hub_files import ResolvedRecords
from knowundo.data.passages import first_passage
from knowundo.data.records import Record
from knowundo.errors import unknown
from knowundo.registry import benchmark

DOMAINS = ("bio", "cyber")
CORPORA, QUESTIONS = "cais/wmdp-corpora", "cais/wmdp"
_ABOUT = {"bio": "biology", "cyber": "cybersecurity"}
# Documents of either corpus: RMU trains on 320 to 600. The largest corpus has 60,887.
DOCUMENTS = 1000
# The authors leave out what is shorter.
_SHORTEST = 50


def _documents(rows: Sequence[TableRow], scope: str, most: int) -> list[Record]:
    """The first passage of each document, as the authors train on its first tokens."""
    records: list[Record] = []
    for number, row in enumerate(rows):
        text, more = first_passage(row.text("text"))
        name = f"{scope}/train/{number}"
        if len(text) >= _SHORTEST:
            records.append(
                Record(name, "", text, scope, "train", name, kind="text", continues=more)
            )
        if len(records) == most:
            break
    return records


def _questions(rows: Sequence[TableRow], domain: str) -> list[Record]:
    records = []
    for number, row in enumerate(rows):
        name = f"unlearn/val/{number}"
        asked = Record(name, row.text("question"), "", "unlearn", "val", name)
        records.append(choice_record(asked, *row.choices(), about=_ABOUT[domain]))
    return records


@benchmark(
    domains=DOMAINS,
    licence="MIT",
    citation="Li et al. 2024, arXiv:2403.03218",
    size="bio: 1,273 questions, 60,887 retain texts (0.9 GB); cyber: 1,987 questions, 1,000 "
    "forget and 4,473 retain texts (37 MB)",
    requires="cais/wmdp and cais/wmdp-corpora on the hub, or a folder with their files; the bio "
    "forget corpus must be requested from the authors",
)
def wmdp(
    *,
    domain: str,
    source: str | None = None,
    revision: str | None = None,
    seed: int = 0,
    subjects: int | None = None,
) -> list[Record]:
    """WMDP's corpora, and its multiple-choice questions as split val.

    Args:
        domain: `bio` or `cyber`; chemistry has questions, but no corpus to unlearn.
        source: Folder with `cyber-forget-corpus`, `cyber-retain-corpus` and `wmdp-cyber` (or
            `cyber_questions`), likewise for bio. If `None`, the hub, which has no corpus of bio to
            unlearn.
        revision: Commit of the corpora on the hub; of the questions the newest is taken. If
            `None`, the newest of both.
        seed: Not used, because the rows are given.
        subjects: Documents of either corpus. If `None`, the first 1,000.

    Raises:
        BadInput: No files, or a malformed row.
    """
    if domain not in DOMAINS:
        raise unknown("domain of benchmark wmdp", domain, DOMAINS)
    BenchmarkFiles.check_subjects(subjects)
    patterns = [f"{domain}-forget-corpus/*", f"{domain}-retain-corpus/train-00000*"]
    files = BenchmarkFiles.find(
        source, CORPORA, revision=revision, patterns=patterns, inner=("wmdp-corpora",)
    )
    asked = BenchmarkFiles.find(
        source, QUESTIONS, revision=None, patterns=[f"wmdp-{domain}/*"], inner=("wmdp-mcqs",)
    )
    forget, retain = (
        files.rows(f"{domain}-{scope}-corpus", f"{domain}_{other}_dataset", text="text")
        for scope, other in (("forget", "remove"), ("retain", "retain"))
    )
    most = subjects or DOCUMENTS
    records = [
        *_documents(forget, "unlearn", most),
        *_documents(retain, "retention", most),
        *_questions(asked.rows(f"wmdp-{domain}", f"{domain}_questions"), domain),
    ]
    return ResolvedRecords(records, files.commits | asked.commits)
