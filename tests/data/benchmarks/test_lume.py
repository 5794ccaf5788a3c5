"""LUME in the layout of its repository, and in that of the shared task."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from benchmark_tables import build, write_tables
from hub_layout import hub_cache
from knowundo.data.records import check_records, select
from knowundo.errors import BadInput
from knowundo.registry import get


def document(name: str, task: str, begins: str) -> list[dict[str, str]]:
    """A text to be continued and a question on it; some of LUME's ids have quotation marks."""
    return [
        {"id": f'"{name}"sc1', "input": begins, "output": "and so on.", "task": task},
        {"id": f'"{name}"qa0', "input": f"What of {name}?", "output": "This.", "task": task},
    ]


def tables() -> dict[str, Any]:
    return {
        "forget": [
            *document("a1", "Task1", "Once a mill stood"),
            *document("b-2", "Task2", "Ada Brun was born in May. Her number is"),
            *document("36", "Task3", "He was a painter"),
        ],
        "retain": document("c3", "Task2", "Bo Lind was born in June. His number is"),
    }


def test_completions_and_questions_of_each_task(tmp_path: Path) -> None:
    write_tables(tmp_path, tables(), ending="jsonl")
    records = build("lume", tmp_path, domain="all")
    check_records(records)
    assert [(r.id, r.kind, r.subset, r.subject) for r in records] == [
        ("unlearn/train/a1/sc1", "completion", "creative sc", "a1"),
        ("unlearn/train/a1/qa0", "qa", "creative qa", "a1"),
        ("unlearn/train/b-2/sc1", "completion", "pii sc", "Ada Brun"),
        ("unlearn/train/b-2/qa0", "qa", "pii qa", "Ada Brun"),
        ("unlearn/train/36/sc1", "completion", "real sc", "36"),
        ("unlearn/train/36/qa0", "qa", "real qa", "36"),
        ("retention/train/c3/sc1", "completion", "pii sc", "Bo Lind"),
        ("retention/train/c3/qa0", "qa", "pii qa", "Bo Lind"),
    ]


def test_one_task_and_the_first_documents(tmp_path: Path) -> None:
    write_tables(tmp_path / "data", tables(), ending="jsonl")
    only = build("lume", tmp_path, domain="pii")
    assert {r.subject for r in only} == {"Ada Brun", "Bo Lind"}
    few = build("lume", tmp_path, domain="all", subjects=1)
    assert {r.subject for r in few} == {"a1", "Bo Lind"}


def test_the_release_of_the_shared_task(hub: Path) -> None:
    folder = hub_cache(
        hub, "llmunlearningsemeval2025organization/semeval25-unlearning-dataset-public", "e" * 40
    )
    (folder / "data").mkdir()
    for named, rows in tables().items():
        for fold in ("train", "validation"):
            file = f"{named}_{fold}-00000-of-00001.parquet"
            Dataset.from_list(rows).to_parquet(folder / "data" / file)
    texts = {name: [{"id": "1", "document": f"A {name}."}] for name in ("member", "nonmember")}
    write_tables(folder / "mia_data", texts, ending="jsonl")
    records = get("benchmark", "lume")(domain="all")
    check_records(records)
    assert Counter((r.scope, r.split) for r in records) == {
        ("unlearn", "train"): 6,
        ("unlearn", "val"): 6,
        ("retention", "train"): 2,
        ("retention", "val"): 2,
        ("unlearn", "probe"): 1,
        ("unlearn", "holdout"): 1,
    }
    (held,) = select(records, split="holdout")
    assert (held.answer, held.kind, held.subset) == ("A nonmember.", "text", "mia")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "a1"}, r"forget\.jsonl, row 1: id 'a1' does not end in sc or qa and a number"),
        ({"task": "Task4"}, r"row 1: unknown task 'Task4'; did you mean 'Task"),
        ({"output": ""}, "row 1: 'output' is missing or empty"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, change: dict[str, str], said: str) -> None:
    rows = tables()
    rows["forget"][0] |= change
    write_tables(tmp_path, rows, ending="jsonl")
    with pytest.raises(BadInput, match=said):
        build("lume", tmp_path, domain="all")
    with pytest.raises(BadInput, match="unknown domain of benchmark lume"):
        build("lume", tmp_path, domain="stories")
