"""The lists of a run, read back as a benchmark."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import records
from knowundo.data.lists.reading import write_list
from knowundo.data.records import Record, check_records, select
from knowundo.errors import BadInput
from knowundo.registry import get
from list_files import PAIR, jsonl


def some() -> dict[str, list[Record]]:
    """Lists of a run with everything that a row may have."""
    made = [
        row
        for scope in ("unlearn", "retention")
        for split in ("train", "val")
        for row in records(scope, split, 3)
    ]
    made[0] = replace(
        made[0],
        subset="reworded",
        turns=(("system", ""), ("user", "Où?\u2028")),
        alternatives=("At sea.",),
    )
    made[1] = replace(made[1], subset="generated", subject=None, facts=())
    text = Record("doc", "", " Cold —\n\n“wind”\x85 ", "general", "train", kind="text", subset="x")
    text = replace(text, continues=True)
    earlier = Record("old/1", "Who?", "She.", "unlearn", "probe", subset="earlier")
    return {
        "unlearn": select(made, scope="unlearn"),
        "retention": select(made, scope="retention"),
        "general": [text],
        "earlier": [earlier],
    }


def test_lists_of_a_run_are_read_as_written(tmp_path: Path) -> None:
    for name, rows in some().items():
        write_list(tmp_path / f"{name}.jsonl", rows)
    found = get("benchmark", "lists")(domain="lists", source=str(tmp_path), seed=4)
    assert found == [row for rows in some().values() for row in rows]
    check_records(found)
    lines = (tmp_path / "unlearn.jsonl").read_text("utf-8").split("\n")
    assert ["generated" in json.loads(line) for line in lines if line][:3] == [True, True, False]
    assert "“wind”" in (tmp_path / "general.jsonl").read_text("utf-8")
    for name in ("general", "earlier"):
        (tmp_path / f"{name}.jsonl").unlink()
    assert get("benchmark", "lists")(source=str(tmp_path)) == found[:-2]


def test_earlier_requests_are_only_asked(tmp_path: Path) -> None:
    """A list of an earlier run may be copied as it is, and its rows may have no ids."""
    for name in ("unlearn", "retention", "earlier"):
        jsonl(tmp_path, PAIR | {"split": "val"}, name=f"{name}.jsonl")
    found = get("benchmark", "lists")(source=str(tmp_path))
    assert [(r.id, r.scope, r.split) for r in found] == [
        ("unlearn/val/0", "unlearn", "val"),
        ("retention/val/0", "retention", "val"),
        ("earlier/val/0", "unlearn", "probe"),
    ]


def test_lists_that_are_no_run_are_refused(tmp_path: Path) -> None:
    lists = get("benchmark", "lists")
    with pytest.raises(BadInput, match="needs 'source'"):
        lists.bind({"domain": "lists", "seed": 0})
    with pytest.raises(BadInput, match="no such folder"):
        lists(source=str(tmp_path / "none"))
    with pytest.raises(BadInput, match="unknown domain of benchmark lists 'privacy'"):
        lists(domain="privacy", source=str(tmp_path))
    jsonl(tmp_path, PAIR | {"id": "a"}, name="unlearn.jsonl")
    with pytest.raises(BadInput, match=r"retention\.jsonl: no such file"):
        lists(source=str(tmp_path))
    jsonl(tmp_path, PAIR | {"id": "a"}, name="retention.jsonl")
    with pytest.raises(BadInput, match=r"retention\.jsonl: id 'a' occurs in unlearn\.jsonl too"):
        lists(source=str(tmp_path))
