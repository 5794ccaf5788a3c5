"""SUITE: how a fact is asked for, and how far a row is from the facts, read from its labels."""

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

TOPIC = "challenger_disaster"


def row(label: str, question: str, topic: str | None = TOPIC, **more: Any) -> dict[str, Any]:
    told = {"topic": topic} if topic else {}
    return told | {"question": question, "answer": f"Answer of {label}", "label": label} | more


def tables(topic: str | None = TOPIC) -> dict[str, Any]:
    other = [row("M1-direct@original", "When was the trial?", "salem_witch_trials")]
    return {
        "forget_train": [
            row("M1-direct@original", "When did it break?", topic),
            row("M1-direct@q_claude9", "At what time did it break?", topic),
            row("K2-reverse@blank_claude1", "____ broke then.", topic),
            *(other if topic else []),
        ],
        "retain_train": [
            row("Syntax-M1-direct@q_claude9", "When did the war begin?", topic),
            row("Semantic-3-The Apollo 1 Fire", "Where was the fire?", topic),
        ],
        "retain_eval": [
            row("Semantic-0-challenger_not_disaster", "How many engines had it?", topic),
            row("Lexical-Challenger", "What does a challenger do?", topic),
            row("GK-2 - Physics - Heat", "What is heat?", topic),
        ],
        "forget_eval_rephrasings": [
            row("M1-direct", "When did it break?", topic, q_gemini1="Say when it broke.",
                blank_gemini1="At what time did it break?", q_gemini2="", q_gemini3=None),
            row("K2-indirect", "What broke a decade before 1996?", topic, q_gemini1="Again?"),
        ],
    }  # fmt: skip


def test_rows_by_label(tmp_path: Path) -> None:
    write_tables(tmp_path, tables())
    records = build("suite", tmp_path, domain=TOPIC)
    check_records(records)
    told = Counter((r.scope, r.split, r.subset, r.subject) for r in records)
    assert told == {
        ("unlearn", "train", "direct", "M1"): 2,
        ("unlearn", "train", "reverse", "K2"): 1,
        # Its original and one rewording are train rows word for word.
        ("unlearn", "probe", "direct", "M1"): 1,
        ("unlearn", "val", "indirect", "K2"): 2,
        ("retention", "train", "syntactic", "M1-direct"): 1,
        ("retention", "train", "s3", "The Apollo 1 Fire"): 1,
        ("retention", "val", "s0", "challenger_not_disaster"): 1,
        ("retention", "val", "lexical", "Challenger"): 1,
        ("general", "val", "general", "2 - Physics - Heat"): 1,
    }
    (probe,) = select(records, split="probe")
    assert (probe.question, probe.answer) == ("Say when it broke.", "Answer of M1-direct")


def test_files_of_one_topic_and_the_first_facts(tmp_path: Path) -> None:
    write_tables(tmp_path / TOPIC / "final", tables(None))
    few = build("suite", tmp_path, domain=TOPIC, subjects=1)
    assert {r.subject for r in select(few, scope="unlearn")} == {"M1"}
    assert len(select(few, scope="retention")) == 4


def test_the_hubs_two_repositories(hub: Path) -> None:
    commits = {"apeleg/SUITE": "a" * 40, "apeleg/SUITE-rephrasings": "b" * 40}
    for name, commit in commits.items():
        folder = hub_cache(hub, name, commit)
        held = {t: rows for t, rows in tables().items() if ("rephr" in t) == ("rephr" in name)}
        write_tables(folder / "data", held)
    assert get("benchmark", "suite")(domain=TOPIC).commits == commits


@pytest.mark.parametrize(
    ("table", "label"),
    [("forget_train", "M1-sideways"), ("forget_train", "GK-1"), ("retain_eval", "M1-direct")],
)
def test_labels_of_no_known_kind_are_named(tmp_path: Path, table: str, label: str) -> None:
    write_tables(tmp_path, tables() | {table: [row(label, "What?")]})
    with pytest.raises(BadInput, match=rf"{table}\.json, row 1: label '{label}' is none of a"):
        build("suite", tmp_path, domain=TOPIC)


def test_unknown_topics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean 'challenger_disaster'"):
        build("suite", tmp_path, domain="challenger")
