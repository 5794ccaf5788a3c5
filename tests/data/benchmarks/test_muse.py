"""MUSE in the folders that its load_data.py writes, and in the hub's."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from hub_layout import hub_cache
from knowundo.data.records import Record, check_records, select
from knowundo.errors import BadInput
from knowundo.registry import get

LONG = "The bell of the old mill rang. " * 60  # 1,860 characters: two passages


def pair(name: str) -> dict[str, str]:
    return {"question": f"Who owns {name}?", "answer": f"Owner of {name}"}


def tables() -> dict[str, list[Any]]:
    return {
        "raw/forget": [LONG, "A short article."],
        "raw/retain1": ["Another article.", "A third one."],
        "scal/forget_2": ["Only this one."],
        "knowmem/forget_qa": [pair("the mill")],
        "knowmem/forget_qa_icl": [pair("a cat"), pair("a dog")],
        "knowmem/retain_qa": [pair("the inn")],
        "verbmem/forget": [{"prompt": "The bell of", "gt": "the old mill rang."}],
        "privleak/forget": ["A short article."],
        "privleak/retain": ["A third one."],
        "privleak/holdout": ["Never seen."],
    }


def write(folder: Path, **changed: Any) -> None:
    for name, rows in (tables() | changed).items():
        file = folder / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows))


def muse(folder: Path, **arguments: Any) -> list[Record]:
    entry = get("benchmark", "muse")
    built: list[Record] = entry(**entry.bind({"domain": "news", "source": str(folder)} | arguments))
    return built


@pytest.mark.parametrize("inner", ["data/news", "news", "."])
def test_texts_probes_and_questions(tmp_path: Path, inner: str) -> None:
    write(tmp_path / inner)
    records = muse(tmp_path)
    check_records(records)
    assert Counter((r.scope, r.split, r.subset, r.kind) for r in records) == {
        ("unlearn", "train", None, "text"): 3,
        ("retention", "train", None, "text"): 2,
        ("unlearn", "val", "knowmem", "completion"): 1,
        ("retention", "val", "knowmem", "completion"): 1,
        ("unlearn", "probe", "verbmem", "completion"): 1,
        ("unlearn", "probe", "privleak", "text"): 1,
        ("retention", "probe", "privleak", "text"): 1,
        ("unlearn", "holdout", "privleak", "text"): 1,
    }
    first, second, third = select(records, scope="unlearn", split="train")
    assert f"{first.answer} {second.answer}" == LONG.strip()
    assert (first.continues, second.continues, third.continues) == (True, False, False)
    assert first.subject == second.subject != third.subject


def test_questions_come_after_muses_examples(tmp_path: Path) -> None:
    write(tmp_path)
    records = {(r.scope, r.split): r for r in muse(tmp_path) if r.subset == "knowmem"}
    asked = records["unlearn", "val"]
    assert asked.question == (
        "Question: Who owns a cat?\nAnswer: Owner of a cat\n\n"
        "Question: Who owns a dog?\nAnswer: Owner of a dog\n\n"
        "Question: Who owns the mill?\nAnswer:"
    )
    assert asked.answer == "Owner of the mill"
    # Without a table of examples the question stands alone.
    assert records["retention", "val"].question == "Question: Who owns the inn?\nAnswer:"


def test_folds_and_the_first_documents(tmp_path: Path) -> None:
    write(tmp_path)
    fold = select(muse(tmp_path, domain="news-scal-2"), scope="unlearn", split="train")
    assert [r.answer for r in fold] == ["Only this one."]
    few = select(muse(tmp_path, subjects=1), split="train")
    assert Counter(r.scope for r in few) == {"unlearn": 2, "retention": 1}
    with pytest.raises(BadInput, match="has no table sust/forget_1"):
        muse(tmp_path, domain="news-sust-1")
    with pytest.raises(BadInput, match="unknown domain of benchmark muse 'new'"):
        muse(tmp_path, domain="new")


def test_the_hubs_parquet_wins_over_json_of_an_earlier_version(hub: Path) -> None:
    commit = "b" * 40
    folder = hub_cache(hub, "muse-bench/MUSE-Books", commit)
    for name, rows in tables().items():
        stem = name.replace("retain", "retain2") if name.startswith(("knowmem", "priv")) else name
        file = folder / f"{stem}-00000-of-00001.parquet"
        file.parent.mkdir(exist_ok=True)
        texts = [row if isinstance(row, dict) else {"text": row} for row in rows]
        Dataset.from_list(texts).to_parquet(file)
    (folder / "verbmem" / "forget.json").write_text('[{"prompt": "stale", "gt": "stale"}]')
    records = get("benchmark", "muse")(domain="books")
    assert records.commits == {"muse-bench/MUSE-Books": commit}
    (verbatim,) = [r for r in records if r.subset == "verbmem"]
    assert (verbatim.question, verbatim.answer) == ("The bell of", "the old mill rang.")
    assert verbatim.continues


@pytest.mark.parametrize(
    ("table", "rows", "said"),
    [
        ("raw/forget", ["Fine.", " "], r"raw/forget\.json, row 2: 'text' is missing or empty"),
        ("verbmem/forget", [{"prompt": "P"}], r"verbmem/forget\.json, row 1: 'gt' is missing"),
        ("knowmem/retain_qa", [7], "row 1: a number, not an object"),
        ("privleak/holdout", {}, r"privleak/holdout\.json, row 1: 'text' is missing"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, table: str, rows: Any, said: str) -> None:
    write(tmp_path, **{table: rows})
    with pytest.raises(BadInput, match=said):
        muse(tmp_path)
