"""WMDP: corpora whose documents must go or stay, and questions with four options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from benchmark_tables import build, write_tables
from hub_layout import hub_cache
from knowundo.data.records import check_records, select
from knowundo.errors import BadInput
from knowundo.registry import get

LONG = "A sentence about locks and doors. " * 60
QUESTION = {
    "question": "Which tool opens the door? ",
    "choices": ["a spoon", "a key", "a cat", "a pen"],
    "answer": 1,
}


def tables() -> dict[str, list[Any]]:
    return {
        "cyber-forget-corpus": [{"text": LONG}, {"text": "Too short."}, LONG],
        "cyber-retain-corpus": [{"text": f"{n}: {LONG}"} for n in range(3)],
        "wmdp-cyber": [QUESTION],
    }


def test_first_passages_and_questions(tmp_path: Path) -> None:
    write_tables(tmp_path, tables(), ending="jsonl")
    records = build("wmdp", tmp_path, domain="cyber")
    check_records(records)
    forget = select(records, scope="unlearn", split="train")
    assert [r.id for r in forget] == ["unlearn/train/0", "unlearn/train/2"]
    assert all(r.kind == "text" and r.continues and len(r.answer) <= 1500 for r in forget)
    assert len(select(records, scope="retention", split="train")) == 3
    assert len(select(build("wmdp", tmp_path, domain="cyber", subjects=1), split="train")) == 2


def test_question_as_lm_evaluation_harness_asks_it(tmp_path: Path) -> None:
    write_tables(tmp_path / "wmdp-corpora", tables(), ending="jsonl")
    write_tables(tmp_path / "wmdp-mcqs", {"cyber_questions": [QUESTION]})
    (asked,) = select(build("wmdp", tmp_path, domain="cyber"), split="val")
    assert asked.question == (
        "The following are multiple choice questions (with answers) about cybersecurity.\n\n"
        "Which tool opens the door?\nA. a spoon\nB. a key\nC. a cat\nD. a pen\nAnswer:"
    )
    assert (asked.answer, asked.alternatives) == ("B", ("A", "C", "D"))
    assert (asked.kind, asked.continues, asked.scope) == ("choice", True, "unlearn")


def test_the_hubs_two_repositories(hub: Path) -> None:
    commits = {"cais/wmdp-corpora": "c" * 40, "cais/wmdp": "d" * 40}
    for repository, commit in commits.items():
        folder = hub_cache(hub, repository, commit)
        for name, rows in tables().items():
            if name.startswith("wmdp") == (repository == "cais/wmdp"):
                split = "test" if repository == "cais/wmdp" else "train"
                texts = [row if isinstance(row, dict) else {"text": row} for row in rows]
                (folder / name).mkdir()
                Dataset.from_list(texts).to_parquet(
                    folder / name / f"{split}-00000-of-00001.parquet"
                )
    records = get("benchmark", "wmdp")(domain="cyber")
    check_records(records)
    assert records.commits == commits


@pytest.mark.parametrize("answer", [4, "1", None, True])
def test_answer_that_is_no_option_is_named(tmp_path: Path, answer: Any) -> None:
    write_tables(tmp_path, tables() | {"wmdp-cyber": [QUESTION | {"answer": answer}]})
    with pytest.raises(BadInput, match=r"wmdp-cyber\.json, row 1: 'answer' is not a number from 0"):
        build("wmdp", tmp_path, domain="cyber")


def test_biology_without_its_forget_corpus_says_so(tmp_path: Path) -> None:
    write_tables(tmp_path, tables())
    with pytest.raises(BadInput, match="has no table bio-forget-corpus or bio_remove_dataset"):
        build("wmdp", tmp_path, domain="bio")
    with pytest.raises(BadInput, match="unknown domain of benchmark wmdp 'chem'"):
        build("wmdp", tmp_path, domain="chem")
