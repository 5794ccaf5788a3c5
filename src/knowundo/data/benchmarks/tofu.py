"""TOFU (Maini et al. 2024, arXiv:2401.06121): 200 fictitious authors with 20 questions each.

Licence MIT. On the hub (locuslab/TOFU) a split is a file of JSON lines: `forget01.json` with
`retain99.json` and so on; the `_perturbed` files add a paraphrased and some wrong answers to the
rows that TOFU evaluates, and a paraphrased question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from knowundo.data.benchmark_files import BenchmarkFiles, TableRow
from knowundo.data.hub_files import ResolvedRecords
from knowundo.data.lists.subjects import PERSON
from knowundo.data.records import Record
from knowundo.errors import unknown
from knowundo.registry import benchmark

DOMAINS = ("forget01", "forget05", "forget10")
REPOSITORY = "locuslab/TOFU"
# Questions about an author; they are adjacent in every file.
EACH = 20

Perturbed = Mapping[tuple[str, str], TableRow]


def _authors(rows: Sequence[TableRow], scope: str) -> list[str]:
    """The author of each row: the full name that most of the author's rows have."""
    authors: list[str] = []
    for first in range(0, len(rows), EACH):
        block = rows[first : first + EACH]
        texts = [f"{row.text('question')} {row.text('answer')}" for row in block]
        counts = Counter(name for text in texts for name in _people(text))
        best = max(counts, key=lambda name: (counts[name], len(name), name), default="")
        if counts[best] < 2 or best in authors:
            best = f"author {first // EACH + 1} of {scope}"
        authors += [best] * len(block)
    return authors


def _people(text: str) -> set[str]:
    return {match.group().rstrip(".").removesuffix("'s") for match in PERSON.finditer(text)}


def _perturbed(files: BenchmarkFiles, stem: str) -> dict[tuple[str, str], TableRow]:
    """Rows of a `_perturbed` table by question and answer."""
    return {(row.text("question"), row.text("answer")): row for row in files.rows(stem)}


def _scope_records(
    rows: Sequence[TableRow], scope: str, perturbed: Perturbed, subjects: int | None
) -> list[Record]:
    """Train rows of a scope, and as `probe` those of them that TOFU has a reworded question for."""
    records, probes = [], []
    for number, (row, author) in enumerate(zip(rows, _authors(rows, scope), strict=True)):
        if subjects is not None and number >= subjects * EACH:
            break
        question, answer = row.text("question"), row.text("answer")
        name = f"{scope}/train/{number}"
        record = Record(name, question, answer, scope, "train", author)
        if (other := perturbed.get((question, answer))) is not None:
            record = replace(
                record,
                alternatives=other.texts("perturbed_answer"),
                paraphrase=other.text("paraphrased_answer"),
                subset="evaluated",
            )
            reworded = other.maybe("paraphrased_question")
            if reworded is not None and reworded != question:
                probe = f"{scope}/probe/{number}"
                probes.append(replace(record, id=probe, question=reworded, split="probe"))
        records.append(record)
    return records + probes


def _general_records(files: BenchmarkFiles) -> list[Record]:
    """Real authors and world facts: what the base knows; val, because nothing trains on them."""
    return [
        Record(
            f"general/val/{subset}/{number}",
            row.text("question"),
            row.text("answer"),
            "general",
            "val",
            f"{subset} {number}",
            alternatives=row.texts("perturbed_answer"),
            subset=subset,
        )
        for subset in ("real_authors", "world_facts")
        for number, row in enumerate(files.rows(f"{subset}_perturbed"))
    ]


def _holdout_records(files: BenchmarkFiles, domain: str) -> list[Record]:
    """Authors that no model saw, where the files have them."""
    rows = files.maybe(domain.replace("forget", "holdout"))
    return [
        Record(f"unlearn/holdout/{n}", row.text("question"), row.text("answer"), "unlearn",
               "holdout", author)
        for n, (row, author) in enumerate(zip(rows, _authors(rows, "holdout"), strict=True))
    ]  # fmt: skip


@benchmark(
    domains=DOMAINS,
    licence="MIT",
    citation="Maini et al. 2024, arXiv:2401.06121",
    counts={
        "forget01": {"unlearn": (40, 0), "retention": (3960, 0)},
        "forget05": {"unlearn": (200, 0), "retention": (3800, 0)},
        "forget10": {"unlearn": (400, 0), "retention": (3600, 0)},
    },
    size="4,000 questions on 200 authors; 6 MB",
    requires="locuslab/TOFU on the hub, or a folder with its files",
)
def tofu(
    *,
    domain: str,
    source: str | None = None,
    revision: str | None = None,
    seed: int = 0,
    subjects: int | None = None,
) -> list[Record]:
    """TOFU's own files: forget authors must go, retain authors must stay.

    Rows that TOFU evaluates (all forget rows, and the 400 of `retain_perturbed`) have wrong answers
    as `alternatives`, a `paraphrase`, and a reworded question as split `probe`. Real authors and
    world facts are general val rows, `holdoutNN` (if it is there) is the split `holdout`.

    Args:
        domain: `forget01`, `forget05` or `forget10`, with `retain99`, `retain95` or `retain90`.
        source: Folder with the files. If `None`, the hub.
        revision: Commit on the hub. If `None`, the newest.
        seed: Not used, because the rows are given.
        subjects: Use only the first so many authors of either scope. If `None`, all.

    Raises:
        BadInput: No files, or a malformed row.
    """
    if domain not in DOMAINS:
        raise unknown("domain of benchmark tofu", domain, DOMAINS)
    BenchmarkFiles.check_subjects(subjects)
    retain = f"retain{100 - int(domain.removeprefix('forget'))}"
    stems = (domain, retain, "retain_perturbed", "real_authors", "world_facts", "holdout")
    files = BenchmarkFiles.find(
        source, REPOSITORY, revision=revision, patterns=[f"{stem}*" for stem in stems]
    )
    records = [
        *_scope_records(
            files.rows(domain), "unlearn", _perturbed(files, f"{domain}_perturbed"), subjects
        ),
        *_scope_records(
            files.rows(retain), "retention", _perturbed(files, "retain_perturbed"), subjects
        ),
        *_holdout_records(files, domain),
        *_general_records(files),
    ]
    return ResolvedRecords(records, files.commits)
