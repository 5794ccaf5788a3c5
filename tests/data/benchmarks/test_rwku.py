"""RWKU: one person or a batch must go; probes of three levels, neighbours and utility."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmark_tables import build, write_tables
from hub_layout import hub_cache
from knowundo.data.records import check_records, select
from knowundo.errors import BadInput
from knowundo.registry import get

PEOPLE = ("Ada Brun", "Bo Lind", "Cem Aydin")


def probe(person: str, query: str, level: int, kind: str = "simple question") -> dict[str, Any]:
    return {"query": f"{query} {person}", "answer": "Blue.", "subject": person,
            "level": str(level), "type": kind}  # fmt: skip


def tables() -> dict[str, Any]:
    each: dict[str, list[Any]] = {
        "intro": [{"target": one, "intro": f"Please forget {one}."} for one in PEOPLE],
        "passage": [{"text": f"{one} paints.", "subject": one} for one in PEOPLE],
        "forget_mia": [{"text": f"Of {one}.", "subject": one} for one in PEOPLE],
        "retain_mia": [{"text": f"Not of {one}.", "subject": one} for one in PEOPLE],
        "forget_level1": [probe(one, "The colour is ___ of", 1, "cloze") for one in PEOPLE],
        "forget_level2": [probe(one, "Which colour has", 2) for one in PEOPLE],
        "forget_level3": [
            *(probe(one, "Answer first: what of", 3, "prefix injection") for one in PEOPLE),
            *(probe(one, "Question: a\nAnswer: b\nQ", 3, "incontext learning") for one in PEOPLE),
        ],
        "neighbor_level1": [probe(one, "Near is ___ of", 1, "cloze") for one in PEOPLE],
        "neighbor_level2": [probe(one, "Who is near", 2) for one in PEOPLE],
        "retain_mmlu": [{"question": "1 + 1?", "choices": ["1", "2"], "answer": 1,
                         "task": "abstract_algebra", "subject": PEOPLE[0]}],
        "truthful": [{"question": "Is glass a liquid?", "subject": PEOPLE[0],
                      "mc1_targets": {"choices": ["No", "It flows", "Yes"], "labels": [1, 0, 0]}}],
        "triviaqa": [{"question": "Capital of Norway?", "answers": ["Oslo", "oslo"],
                      "subject": PEOPLE[0]}],
    }  # fmt: skip
    return each


def test_one_person(tmp_path: Path) -> None:
    write_tables(tmp_path / "All", tables())
    records = build("rwku", tmp_path, domain="Ada Brun")
    check_records(records)
    assert Counter((r.scope, r.split, r.subset, r.subject) for r in records) == {
        ("unlearn", "train", None, "Ada Brun"): 1,
        ("retention", "train", None, "Bo Lind"): 1,
        ("retention", "train", None, "Cem Aydin"): 1,
        ("unlearn", "val", "level1", "Ada Brun"): 1,
        ("unlearn", "val", "level2", "Ada Brun"): 1,
        ("unlearn", "probe", "level3 prefix injection", "Ada Brun"): 1,
        ("unlearn", "probe", "level3 incontext learning", "Ada Brun"): 1,
        ("retention", "val", "level1", "Ada Brun"): 1,
        ("retention", "val", "level2", "Ada Brun"): 1,
        ("unlearn", "probe", "mia", "Ada Brun"): 1,
        ("retention", "probe", "mia", "Ada Brun"): 1,
        ("general", "val", "mmlu", "general/val/mmlu/0"): 1,
        ("general", "val", "truthfulqa", "general/val/truthfulqa/0"): 1,
        ("general", "val", "triviaqa", "general/val/triviaqa/0"): 1,
    }
    asked = {r.subset: r for r in records if r.scope != "retention"}
    assert asked["level1"].question == (
        "Please complete the blank in the following question.\n"
        "Question: The colour is ___ of Ada Brun"
    )
    assert asked["level3 incontext learning"].question == (
        "Please briefly answer the following question.\nQuestion: a\nAnswer: b\nQ Ada Brun"
    )
    assert (asked["mmlu"].answer, asked["mmlu"].kind) == ("B", "choice")
    # The right option comes first in the files, and in the order of the alphabet here.
    assert "A. It flows\nB. No\nC. Yes" in asked["truthfulqa"].question
    assert asked["truthfulqa"].answer == "B"
    assert asked["triviaqa"].answer == "Oslo"


def test_a_batch_and_the_hub(tmp_path: Path, hub: Path) -> None:
    folder = hub_cache(hub, "jinzhuoran/RWKU", "f" * 40)
    write_tables(folder / "All", tables())
    records = get("benchmark", "rwku")(domain="batch", subjects=2)
    check_records(records)
    assert {r.subject for r in select(records, scope="unlearn")} == {"Ada Brun", "Bo Lind"}
    train = select(records, scope="retention", split="train")
    assert {r.subject for r in train} == {"Cem Aydin"}


def test_bad_input_is_named(tmp_path: Path) -> None:
    wrong = tables()
    wrong["truthful"][0]["mc1_targets"]["labels"] = [0, 0, 0]
    write_tables(tmp_path, wrong)
    with pytest.raises(BadInput, match=r"truthful\.json, row 1, mc1_targets: 'labels' is not"):
        build("rwku", tmp_path, domain="Ada Brun")
    with pytest.raises(BadInput, match="did you mean 'Bo Lind'"):
        build("rwku", tmp_path, domain="Bo Lindt")
