"""SUITE (Peleg et al. 2026, arXiv:2607.09236): a fact that must go, and its annotated surroundings.

Rows of apeleg/SUITE and apeleg/SUITE-rephrasings have `topic`, `question`, `answer` and `label`,
which says what fact a row asks for and how (`M1-direct@q_claude9`), or how far from the facts it is
(`Semantic-3-…`, `Syntax-…`, `Lexical-…`, `GK-…`).
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import replace

from knowundo.data.benchmark_files import BenchmarkFiles, TableRow
from knowundo.data.hub_files import ResolvedRecords
from knowundo.data.records import Record
from knowundo.errors import BadInput, unknown
from knowundo.registry import benchmark

DOMAINS = (
    "britney_spears_conservatorship",
    "challenger_disaster",
    "salem_witch_trials",
    "steve_jobs_medical",
)
REPOSITORY, REPHRASINGS = "apeleg/SUITE", "apeleg/SUITE-rephrasings"
_FORGET = re.compile(r"(?P<fact>[MK]\d+)-(?P<asked>direct|indirect|reverse)(@.+)?")
_SEMANTIC = re.compile(r"Semantic-(?P<distance>\d+)-(?P<about>.+)")
_OTHER = re.compile(r"(?P<family>Syntax|Lexical|GK)-(?P<about>.+)")
_FAMILIES = {"Syntax": "syntactic", "Lexical": "lexical", "GK": "general"}
# Rewordings of a forget question: whole questions, and sentences with a blank.
_REWORDED = (*(f"q_gemini{n}" for n in range(1, 11)), *(f"blank_gemini{n}" for n in range(1, 6)))


def _forget_record(row: TableRow, name: str, split: str) -> Record:
    """A row that must go: the subject is its fact, the subset how it is asked for."""
    label = row.text("label")
    if (found := _FORGET.fullmatch(label)) is None:
        raise BadInput(
            f"{row.place}: label '{label}' is none of a forget row, such as M1-direct or K2-reverse"
        )
    return Record(
        f"unlearn/{split}/{name}",
        row.text("question"),
        row.text("answer"),
        "unlearn",
        split,
        found["fact"],
        subset=found["asked"],
    )


def _retain_record(row: TableRow, name: str, split: str) -> Record:
    """A row that must stay: the subset is its distance, `s0` nearest; `GK` is scope general."""
    label = row.text("label")
    if (found := _SEMANTIC.fullmatch(label)) is not None:
        scope, subset = "retention", f"s{found['distance']}"
    elif (found := _OTHER.fullmatch(label)) is not None:
        scope = "general" if found["family"] == "GK" else "retention"
        subset = _FAMILIES[found["family"]]
    else:
        raise BadInput(
            f"{row.place}: label '{label}' is none of a retain row, such as Semantic-3-…, "
            "Syntax-…, Lexical-… or GK-…"
        )
    subject = found["about"].split("@")[0]
    question, answer = row.text("question"), row.text("answer")
    return Record(f"{scope}/{split}/{name}", question, answer, scope, split, subject, subset=subset)


def _rephrased(row: TableRow, name: str, trained: Container[str]) -> list[Record]:
    """A forget question and its rewordings, without those that training sees word for word.

    Indirect questions are never trained on, so they are split val; the others reword train rows.
    """
    first = _forget_record(row, name, "probe")
    if first.subset == "indirect":
        first = replace(first, id=f"unlearn/val/{name}", split="val")
    others = ((key, row.maybe(key)) for key in _REWORDED)
    found = [first, *(replace(first, id=f"{first.id}/{k}", question=q) for k, q in others if q)]
    return [record for record in found if record.question not in trained]


@benchmark(
    domains=DOMAINS,
    licence="CC-BY-4.0",
    citation="Peleg et al. 2026, arXiv:2607.09236",
    size="4 topics with 25 facts each; 6,430 rows and 300 with rewordings",
    requires="apeleg/SUITE and apeleg/SUITE-rephrasings on the hub, or a folder with their files",
)
def suite(
    *,
    domain: str,
    source: str | None = None,
    revision: str | None = None,
    seed: int = 0,
    subjects: int | None = None,
) -> list[Record]:
    """SUITE's own files: facts of a topic must go, what is near them must stay, by distance.

    Args:
        domain: A topic, such as `challenger_disaster`.
        source: Folder with `forget_train`, `retain_train`, `retain_eval` and
            `forget_eval_rephrasings`, or with a folder of them for the topic. If `None`, the hub.
        revision: Commit of apeleg/SUITE on the hub; of the rewordings the newest is taken. If
            `None`, the newest of both.
        seed: Not used, because the rows are given.
        subjects: Use only the first so many facts of the unlearn scope. If `None`, all.

    Raises:
        BadInput: No files, a malformed row, or a label of none of the known kinds.
    """
    if domain not in DOMAINS:
        raise unknown("domain of benchmark suite", domain, DOMAINS)
    BenchmarkFiles.check_subjects(subjects)
    inner = (f"{domain}/final", domain)
    files, others = (
        BenchmarkFiles.find(source, name, revision=commit, patterns=["*.parquet", "*.json*"],
                            inner=inner)
        for name, commit in ((REPOSITORY, revision), (REPHRASINGS, None))
    )  # fmt: skip

    def rows(table: str) -> list[TableRow]:
        held = others if table == "forget_eval_rephrasings" else files
        found = held.rows(table, f"data/{table}")
        # Files of a single topic do not name it.
        return [row for row in found if (row.maybe("topic") or domain) == domain]

    forget = [_forget_record(r, str(n), "train") for n, r in enumerate(rows("forget_train"))]
    kept = set(list(dict.fromkeys(r.subject for r in forget))[:subjects])
    trained = {record.question for record in forget}
    asked = enumerate(rows("forget_eval_rephrasings"))
    forget += [record for n, row in asked for record in _rephrased(row, str(n), trained)]
    retain = [
        _retain_record(row, str(number), split)
        for split, table in (("train", "retain_train"), ("val", "retain_eval"))
        for number, row in enumerate(rows(table))
    ]
    chosen = [record for record in forget if record.subject in kept]
    return ResolvedRecords([*chosen, *retain], files.commits | others.commits)
