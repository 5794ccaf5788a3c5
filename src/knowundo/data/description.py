"""What the records of a benchmark are: counts, lengths, duplicates, closeness of the scopes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, median

from knowundo.data.entanglement import entanglement
from knowundo.data.records import Record, check_records, select
from knowundo.errors import BadInput

# Figures that Toufikuzzaman et al. 2026 (arXiv:2608.22557) print; their names come of
# a named-entity model. By benchmark and domain: tfidf, vocabulary, names.
PUBLISHED = {
    ("knowundo", "privacy"): (0.523, 0.392, 0.540),
    ("knowundo", "copyright"): (0.441, 0.389, 0.121),
    ("muse", "news"): (0.957, 0.486, 0.191),
    ("muse", "books"): (0.391, 0.329, 0.266),
    ("tofu", "forget01"): (0.172, 0.035, 0.006),
    ("tofu", "forget10"): (0.449, 0.220, 0.047),
}


@dataclass(frozen=True)
class Lengths:
    """Lengths of texts."""

    median: float
    mean: float
    longest: int

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Lengths:
        """Of one or more numbers."""
        return cls(float(median(numbers)), round(mean(numbers), 1), max(numbers))


@dataclass(frozen=True)
class Group:
    """The rows of a scope and split.

    Attributes:
        scope: Of the rows.
        split: Of the rows.
        rows: Their number.
        subjects: Number of different subjects; rows without one count as their own.
        kinds: Number of rows by kind.
        subsets: Number of rows by subset; rows without one are left out.
        question_words: Lengths of the questions; `None` if none of the rows has one.
        answer_words: Lengths of the answers.
        tokens: Lengths of whole rows, as they are trained on.
        repeated: Rows with the question and answer of an earlier row of the group.
        trained: Rows of another split with the question and answer of a train row of the scope.
    """

    scope: str
    split: str
    rows: int
    subjects: int
    kinds: dict[str, int]
    subsets: dict[str, int]
    question_words: Lengths | None
    answer_words: Lengths
    tokens: Lengths
    repeated: int
    trained: int


@dataclass(frozen=True)
class Description:
    """What `describe` finds.

    Attributes:
        groups: Scopes and splits, in the order of the records.
        entanglement: `tfidf`, `vocabulary` and `names` of the train and val rows of the scopes
            unlearn and retention.
        published: The same figures as others print them; `None` if nobody does.
        problem: Why no run can use the records; `None` if one can.
    """

    groups: list[Group]
    entanglement: dict[str, float | None]
    published: dict[str, float] | None
    problem: str | None


def describe(
    records: Sequence[Record],
    count_tokens: Callable[[Sequence[Record]], list[int]],
    *,
    name: str,
    domain: str,
) -> Description:
    """Describe the records of a benchmark.

    Args:
        records: All of them.
        count_tokens: Number of tokens of each row.
        name: Of the benchmark.
        domain: Of the benchmark.
    """
    found = dict.fromkeys((record.scope, record.split) for record in records)
    groups = [_group(records, scope, split, count_tokens) for scope, split in found]
    pair = [select(records, scope=s, split=("train", "val")) for s in ("unlearn", "retention")]
    figures = entanglement(*pair)
    told = PUBLISHED.get((name, domain))
    published = dict(zip(figures, told, strict=True)) if told else None
    return Description(groups, figures, published, _problem(records))


def _problem(records: Sequence[Record]) -> str | None:
    try:
        check_records(records)
    except BadInput as error:
        return str(error)
    return None


def _group(
    records: Sequence[Record],
    scope: str,
    split: str,
    count_tokens: Callable[[Sequence[Record]], list[int]],
) -> Group:
    rows = select(records, scope=scope, split=split)
    said = Counter(_said(row) for row in rows)
    train = {_said(row) for row in select(records, scope=scope, split="train")}
    questions = [len(row.question.split()) for row in rows if row.kind != "text"]
    return Group(
        scope,
        split,
        len(rows),
        len({row.subject or row.id for row in rows}),
        dict(Counter(row.kind for row in rows)),
        dict(Counter(row.subset for row in rows if row.subset is not None)),
        Lengths.of(questions) if questions else None,
        Lengths.of([len(row.answer.split()) for row in rows]),
        Lengths.of(count_tokens(rows)),
        len(rows) - len(said),
        0 if split == "train" else sum(_said(row) in train for row in rows),
    )


def _said(record: Record) -> tuple[object, ...]:
    return record.turns, record.question, record.answer
