"""MUSE (Shi et al. 2024, arXiv:2407.06460): news articles or books that must go, verbatim or not.

Licence CC-BY-4.0 by its cards; the books are copyrighted by their author. On the hub
(muse-bench/MUSE-News, muse-bench/MUSE-Books) a subset is a folder and a split a table in it; the
authors' load_data.py writes the same folders of JSON below `data/news` and `data/books`.
"""

from __future__ import annotations

from collections.abc import Sequence

from knowundo.data.benchmark_files import BenchmarkFiles, TableRow
from knowundo.data.hub_files import ResolvedRecords
from knowundo.data.passages import passages
from knowundo.data.records import Record
from knowundo.errors import unknown
from knowundo.registry import benchmark

DOMAINS = (
    "books", "news", "news-scal-1", "news-scal-2", "news-scal-3", "news-scal-4", "news-sust-1",
    "news-sust-2", "news-sust-3", "news-sust-4",
)  # fmt: skip
REPOSITORY = "muse-bench/MUSE-"


def _documents(
    rows: Sequence[TableRow], scope: str, split: str, subset: str | None = None
) -> list[Record]:
    """Texts in passages; the subject is the document, so that intervals resample documents."""
    records = []
    for number, row in enumerate(rows):
        parts = passages(row.text("text"))
        document = f"{scope}/{split}/{subset or 'text'}/{number}"
        for part, text in enumerate(parts):
            record = Record(
                f"{document}/{part}", "", text, scope, split, document, kind="text",
                subset=subset, continues=part < len(parts) - 1,
            )  # fmt: skip
            records.append(record)
    return records


def _verbatim(rows: Sequence[TableRow]) -> list[Record]:
    """Beginnings of the texts that must go, which a model that knows them continues."""
    return [
        Record(
            name := f"unlearn/probe/verbmem/{n}",
            row.text("prompt"),
            row.text("gt"),
            "unlearn",
            "probe",
            name,
            kind="completion",
            subset="verbmem",
            continues=True,
        )
        for n, row in enumerate(rows)
    ]


def _knowledge(files: BenchmarkFiles, scope: str) -> list[Record]:
    """Questions on the texts of a scope, after ten answered ones as in MUSE's evaluation."""
    named = ("forget",) if scope == "unlearn" else ("retain", "retain2")
    shown = files.maybe(*(f"knowmem/{one}_qa_icl" for one in named))
    before = "".join(f"{_asked(row)} {row.text('answer')}\n\n" for row in shown)
    return [
        Record(
            name := f"{scope}/val/knowmem/{n}",
            before + _asked(row),
            row.text("answer"),
            scope,
            "val",
            name,
            kind="completion",
            subset="knowmem",
        )
        for n, row in enumerate(files.rows(*(f"knowmem/{one}_qa" for one in named)))
    ]


def _asked(row: TableRow) -> str:
    return f"Question: {row.text('question')}\nAnswer:"


@benchmark(
    domains=DOMAINS,
    licence="CC-BY-4.0 (cards); the books are copyrighted",
    citation="Shi et al. 2024, arXiv:2407.06460",
    size="news: 889 articles, 3.3 million tokens; books: 4 books, 1.1 million tokens",
    requires="muse-bench/MUSE-News or -Books on the hub, or what MUSE's load_data.py writes",
)
def muse(
    *,
    domain: str,
    source: str | None = None,
    revision: str | None = None,
    seed: int = 0,
    subjects: int | None = None,
) -> list[Record]:
    """MUSE's own files: texts that must go, texts of the same kind that must stay.

    Texts are cut into passages. `verbmem` is unlearn/probe, as completions; `knowmem` is the split
    val of both scopes, after MUSE's ten examples; texts of `privleak` are probe and holdout.

    Args:
        domain: `news`, `books`, or a fold of MUSE-News: `news-scal-1` to `-4` (ever more to
            unlearn), `news-sust-1` to `-4` (one request after another).
        source: Folder with the folders `news` and `books`, or with the tables of one of them. If
            `None`, the hub.
        revision: Commit on the hub. If `None`, the newest.
        seed: Not used, because the rows are given.
        subjects: Use only the first so many documents of either scope for training. If `None`,
            all.

    Raises:
        BadInput: No files, or a malformed row.
    """
    if domain not in DOMAINS:
        raise unknown("domain of benchmark muse", domain, DOMAINS)
    BenchmarkFiles.check_subjects(subjects)
    corpus, _, fold = domain.partition("-")
    forget = "raw/forget" if not fold else f"{fold[:4]}/forget_{fold[-1]}"
    wanted = (forget, "raw/retain1", "verbmem/forget", "knowmem/*", "privleak/*")
    files = BenchmarkFiles.find(
        source,
        REPOSITORY + corpus.capitalize(),
        revision=revision,
        patterns=[f"{one}*.parquet" for one in wanted],
        inner=(corpus, f"data/{corpus}"),
    )
    records = [
        *_documents(files.rows(forget, text="text")[:subjects], "unlearn", "train"),
        *_documents(files.rows("raw/retain1", text="text")[:subjects], "retention", "train"),
        *_knowledge(files, "unlearn"),
        *_knowledge(files, "retention"),
        *_verbatim(files.rows("verbmem/forget")),
    ]
    for stems, scope, split in (
        (("privleak/forget",), "unlearn", "probe"),
        (("privleak/retain", "privleak/retain2"), "retention", "probe"),
        (("privleak/holdout",), "unlearn", "holdout"),
    ):
        records += _documents(files.rows(*stems, text="text"), scope, split, "privleak")
    return ResolvedRecords(records, files.commits)
