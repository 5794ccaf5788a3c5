"""TOFU in its authors' layout: JSON lines in files that end in .json."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import REAL
from hub_layout import hub_cache
from knowundo.data.records import Record, check_records, data_hash, select
from knowundo.errors import BadInput
from knowundo.registry import get

TOFU = REAL.parent / "tofu"
NAMES = ("Ada Brun", "Bo Lind", "Cem Aydin")
Row = dict[str, Any]


def rows(author: str) -> list[Row]:
    return [
        {"question": f"What is fact {n} of {author}?", "answer": f"{author} has {n} cats."}
        for n in range(20)
    ]


def perturbed(row: Row) -> Row:
    return row | {
        "paraphrased_answer": f"In other words: {row['answer']}",
        "perturbed_answer": [f"{row['answer']} No {n}." for n in range(5)],
        "paraphrased_question": f"Say: {row['question']}",
    }


def tables() -> dict[str, list[Row]]:
    """One forget author and two retained ones, of whom TOFU evaluates the first."""
    forget, first, second = map(rows, NAMES)
    fact = {"question": "Capital of Norway?", "answer": "Oslo", "perturbed_answer": ["Bern"]}
    return {
        "forget01": forget,
        "forget01_perturbed": list(map(perturbed, forget)),
        "retain99": first + second,
        "retain_perturbed": list(map(perturbed, first)),
        "real_authors_perturbed": [fact | {"question": "Who wrote Faust?"}],
        "world_facts_perturbed": [fact],
    }


def write(folder: Path, **changed: list[Row]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (tables() | changed).items():
        (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in table))


def tofu(folder: Path, **arguments: Any) -> list[Record]:
    entry = get("benchmark", "tofu")
    records: list[Record] = entry(
        **entry.bind({"domain": "forget01", "source": str(folder)} | arguments)
    )
    return records


def test_both_scopes_with_what_tofu_evaluates(tmp_path: Path) -> None:
    write(tmp_path)
    records = tofu(tmp_path)
    check_records(records)
    assert Counter((r.scope, r.split) for r in records) == {
        ("unlearn", "train"): 20,
        ("unlearn", "probe"): 20,
        ("retention", "train"): 40,
        ("retention", "probe"): 20,
        ("general", "val"): 2,
    }
    first = records[0]
    assert (first.question, first.answer) == ("What is fact 0 of Ada Brun?", "Ada Brun has 0 cats.")
    assert first.alternatives == tuple(f"Ada Brun has 0 cats. No {n}." for n in range(5))
    assert first.paraphrase == "In other words: Ada Brun has 0 cats."
    assert {r.subject for r in select(records, scope="unlearn")} == {"Ada Brun"}
    retained = select(records, scope="retention", split="train")
    assert Counter((r.subject, bool(r.alternatives)) for r in retained) == {
        ("Bo Lind", True): 20,
        ("Cem Aydin", False): 20,
    }
    probe = select(records, scope="unlearn", split="probe")[0]
    assert probe == replace(
        first, id="unlearn/probe/0", question=f"Say: {first.question}", split="probe"
    )
    assert [(r.subset, r.alternatives) for r in select(records, scope="general")] == [
        ("real_authors", ("Bern",)),
        ("world_facts", ("Bern",)),
    ]


def test_holdout_authors_and_the_first_subjects(tmp_path: Path) -> None:
    write(tmp_path, holdout01=rows("Dag Ek"))
    held = select(tofu(tmp_path), split="holdout")
    assert {(r.scope, r.subject) for r in held} == {("unlearn", "Dag Ek")}
    kept = select(tofu(tmp_path, subjects=1), scope="retention")
    assert {r.subject for r in kept} == {"Bo Lind"}


def test_authors_without_one_name_are_numbered(tmp_path: Path) -> None:
    plain = [{"question": f"What of {n}?", "answer": "it is."} for n in range(21)]
    write(tmp_path, retain99=plain)
    found = Counter(r.subject for r in select(tofu(tmp_path), scope="retention"))
    assert found == {"author 1 of retention": 20, "author 2 of retention": 1}


def test_the_hubs_cache(hub: Path) -> None:
    commit = "a" * 40
    write(hub_cache(hub, "locuslab/TOFU", commit))
    records = get("benchmark", "tofu")(domain="forget01")
    assert records.commits == {"locuslab/TOFU": commit}
    assert data_hash(records) == data_hash(get("benchmark", "tofu")(domain="forget01", seed=3))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"forget01": [{"question": "Q?"}]}, r"forget01\.json, row 1: 'answer' is missing"),
        ({"forget01": [{"question": "Q?", "answer": 4}]}, "row 1: 'answer' is a number"),
        ({"retain99": [*rows("A B"), ["Q"]]}, r"retain99\.json, row 21: a list, not an object"),
        ({"retain99": []}, r"retain99\.json: no rows"),
        (
            {"forget01_perturbed": [perturbed(rows("Ada Brun")[0]) | {"perturbed_answer": "no"}]},
            r"forget01_perturbed\.json, row 1: 'perturbed_answer' is not a list",
        ),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, changed: dict[str, list[Row]], said: str) -> None:
    write(tmp_path, **changed)
    with pytest.raises(BadInput, match=said) as caught:
        tofu(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_named(tmp_path: Path, hub: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        tofu(tmp_path / "none")
    with pytest.raises(BadInput, match="has no table forget01"):
        tofu(tmp_path)
    with pytest.raises(BadInput, match="did you mean 'forget01'"):
        tofu(tmp_path, domain="forget1")
    with pytest.raises(BadInput, match=r"data\.subjects: 0"):
        tofu(tmp_path, subjects=0)
    with pytest.raises(BadInput, match="hf download locuslab/TOFU"):
        get("benchmark", "tofu")(domain="forget01")


@pytest.mark.skipif(not TOFU.exists(), reason=f"no excerpt of TOFU at {TOFU}")
def test_real_rows(tmp_path: Path) -> None:
    """The excerpt has the 400 retained rows that TOFU evaluates; they stand in for retain99."""
    shutil.copytree(TOFU, tmp_path / "tofu")
    (tmp_path / "tofu" / "retain10.json").rename(tmp_path / "tofu" / "retain99.json")
    records = tofu(tmp_path / "tofu")
    check_records(records)
    for scope, authors in (("unlearn", 2), ("retention", 20)):
        train = select(records, scope=scope, split="train")
        assert Counter(Counter(r.subject for r in train).values()) == {20: authors}
        assert all(len(r.alternatives) == 5 and r.paraphrase for r in train)
        assert not any(str(r.subject).startswith("author ") for r in train)
    general = Counter(r.subset for r in select(records, scope="general", split="val"))
    assert general == {"real_authors": 100, "world_facts": 117}
