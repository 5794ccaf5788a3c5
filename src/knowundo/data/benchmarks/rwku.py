"""RWKU (Jin et al. 2024, arXiv:2406.10890): what a model knows of 200 famous people must go.

Licence CC-BY-4.0. On the hub (jinzhuoran/RWKU) the folder `All` has a table for each kind of probe,
with the person as `subject`. RWKU gives no text to unlearn: training takes its Wikipedia passages.
"""

from __future__ import annotations

from collections.abc import Sequence

from knowundo.data.benchmark_files import BenchmarkFiles, TableRow
from knowundo.data.choices import choice_record
from knowundo.data.hub_files import ResolvedRecords
from knowundo.data.passages import passages
from knowundo.data.records import Record
from knowundo.errors import BadInput, unknown
from knowundo.registry import benchmark

DOMAINS = ("batch",)
REPOSITORY = "jinzhuoran/RWKU"
TABLES = (
    "intro", "passage", "forget_level1", "forget_level2", "forget_level3", "neighbor_level1",
    "neighbor_level2", "forget_mia", "retain_mia", "retain_mmlu", "truthful", "triviaqa",
)  # fmt: skip
# People of a batch, and those whose passages stay.
BATCH, RETAINED = 10, 50
_BLANK = "Please complete the blank in the following question.\nQuestion: {}"
_ASK = "Please briefly answer the following question.\nQuestion: {}"
# Its query has several questions and answers already.
_SHOWN = "Please briefly answer the following question.\n{}"


def _of(rows: Sequence[TableRow], people: Sequence[str]) -> list[TableRow]:
    return [row for row in rows if row.text("subject") in people]


def _passages(
    rows: Sequence[TableRow], scope: str, split: str, subset: str | None = None
) -> list[Record]:
    records = []
    for number, row in enumerate(rows):
        parts = passages(row.text("text"))
        for part, text in enumerate(parts):
            record = Record(
                f"{scope}/{split}/{subset or 'passage'}/{number}/{part}", "", text, scope, split,
                row.text("subject"), kind="text", subset=subset, continues=part < len(parts) - 1,
            )  # fmt: skip
            records.append(record)
    return records


def _probes(rows: Sequence[TableRow], scope: str, split: str, level: int) -> list[Record]:
    """Probes in the words of RWKU's evaluation; of level 3, the subset names the attack."""
    records = []
    for number, row in enumerate(rows):
        form, kind = (_BLANK if level == 1 else _ASK), row.maybe("type")
        if kind == "incontext learning":
            form = _SHOWN
        record = Record(
            f"{scope}/{split}/level{level}/{number}",
            form.format(row.text("query")),
            row.text("answer"),
            scope,
            split,
            row.text("subject"),
            subset=f"level3 {kind}" if level == 3 else f"level{level}",
        )
        records.append(record)
    return records


def _utility(files: BenchmarkFiles, people: Sequence[str]) -> list[Record]:
    """MMLU, TruthfulQA and TriviaQA as general val rows, without RWKU's examples before them."""
    records = []
    for number, row in enumerate(_of(files.maybe("All/retain_mmlu", "retain_mmlu"), people)):
        about = (row.maybe("task") or "").replace("_", " ") or None
        asked = _general(row, "mmlu", number)
        records.append(choice_record(asked, *row.choices(), about=about))
    for number, row in enumerate(_of(files.maybe("All/truthful", "truthful"), people)):
        options, right = _first_right(row)
        records.append(choice_record(_general(row, "truthfulqa", number), options, right))
    for number, row in enumerate(_of(files.maybe("All/triviaqa", "triviaqa"), people)):
        records.append(_general(row, "triviaqa", number, row.texts("answers")[0]))
    return records


def _general(row: TableRow, subset: str, number: int, answer: str = "") -> Record:
    name = f"general/val/{subset}/{number}"
    return Record(name, row.text("question"), answer, "general", "val", name, subset=subset)


def _first_right(row: TableRow) -> tuple[list[str], int]:
    """Options of TruthfulQA's mc1 in the order of the alphabet: its first one is always right."""
    told = row.values.get("mc1_targets")
    inner = TableRow(f"{row.place}, mc1_targets", told if isinstance(told, dict) else {})
    options, labels = inner.texts("choices"), inner.values.get("labels")
    if not isinstance(labels, list) or len(labels) != len(options) or 1 not in labels:
        raise BadInput(f"{inner.place}: 'labels' is not one 0 or 1 for each choice, with a 1")
    right = options[labels.index(1)]
    ordered = sorted(options)
    return ordered, ordered.index(right)


def _chosen(files: BenchmarkFiles, domain: str, subjects: int | None) -> tuple[list[str], ...]:
    """People that must go, and others that stay, in RWKU's order."""
    people = [row.text("target") for row in files.rows("All/intro", "intro", "forget_target")]
    if domain == "batch":
        gone = people[: subjects or BATCH]
    elif domain in people:
        gone = [domain]
    else:
        raise unknown("domain of benchmark rwku", domain, ("batch", *people))
    return gone, [one for one in people if one not in gone][:RETAINED]


@benchmark(
    domains=DOMAINS,
    licence="CC-BY-4.0",
    citation="Jin et al. 2024, arXiv:2406.10890",
    size="200 people, 13,131 forget probes; 30 MB of what is read",
    requires="jinzhuoran/RWKU on the hub, or a folder with its folder All; a base that knows the "
    "people, such as an 8B instruct model",
)
def rwku(
    *,
    domain: str,
    source: str | None = None,
    revision: str | None = None,
    seed: int = 0,
    subjects: int | None = None,
) -> list[Record]:
    """RWKU's own files: one famous person or a batch of them must go, their neighbours stay.

    Probes of level 1 and 2 are split val, level 3 (nine attacks) and the texts of the membership
    sets are `probe`; MMLU, TruthfulQA and TriviaQA are general val rows where they are there.

    Args:
        domain: `batch`, or the name of one person, such as `Stephen King`.
        source: Folder with `All`, or with its tables. If `None`, the hub.
        revision: Commit on the hub. If `None`, the newest.
        seed: Not used, because the rows are given.
        subjects: People of a batch, the first of the list. If `None`, 10.

    Raises:
        BadInput: No files, a malformed row, or no such person.
    """
    BenchmarkFiles.check_subjects(subjects)
    files = BenchmarkFiles.find(
        source, REPOSITORY, revision=revision, patterns=[f"All/{one}.json" for one in TABLES]
    )
    gone, stay = _chosen(files, domain, subjects)

    def rows(table: str, people: Sequence[str]) -> list[TableRow]:
        return _of(files.rows(f"All/{table}", table), people)

    records = _passages(rows("passage", gone), "unlearn", "train")
    records += _passages(rows("passage", stay), "retention", "train")
    for level in (1, 2, 3):
        split = "probe" if level == 3 else "val"
        records += _probes(rows(f"forget_level{level}", gone), "unlearn", split, level)
    for level in (1, 2):
        records += _probes(rows(f"neighbor_level{level}", gone), "retention", "val", level)
    records += _passages(rows("forget_mia", gone), "unlearn", "probe", "mia")
    records += _passages(rows("retain_mia", gone), "retention", "probe", "mia")
    return ResolvedRecords([*records, *_utility(files, gone)], files.commits)
