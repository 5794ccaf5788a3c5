"""`knowundo list` prints what can be named in a recipe."""

from __future__ import annotations

import json

import pytest

from conftest import Call


@pytest.mark.parametrize(
    "kind",
    ["methods", "localizers", "metrics", "benchmarks", "combinations", "presets", "templates"],
)
def test_list(knowundo: Call, kind: str) -> None:
    rows = json.loads(knowundo("list", kind, "--json").stdout)
    plain = knowundo("list", kind).stdout
    assert rows
    for row in rows:
        assert row["summary"]
        assert row["name"] in plain


def test_methods_name_their_papers_and_what_they_read(knowundo: Call) -> None:
    rows = {row["name"]: row for row in json.loads(knowundo("list", "methods", "--json").stdout)}
    assert rows["npo"]["papers"] == [{"paper": "Zhang et al. 2024", "arxiv": "2404.05868"}]
    assert rows["npo"]["reads"] == ["unlearn", "retention", "reference"]
    plain = " ".join(knowundo("list", "methods").stdout.split())
    assert "arXiv:2404.05868" in plain


def test_localizers_name_their_papers_and_what_they_need(knowundo: Call) -> None:
    rows = {r["name"]: r for r in json.loads(knowundo("list", "localizers", "--json").stdout)}
    assert rows["snip"]["papers"] == [{"paper": "Lee et al. 2019", "arxiv": "1810.02340"}]
    assert rows["snip"]["needs"] == ["gradients", "weights"]
    assert rows["snip"]["arguments"] == {"share": 0.25, "granularity": "tensor"}
    assert rows["memflex"]["needs"] is None
    plain = " ".join(knowundo("list", "localizers").stdout.split())
    assert "needs gradients, weights" in plain


def test_benchmarks_say_licence_size_and_what_they_need(knowundo: Call) -> None:
    rows = {r["name"]: r for r in json.loads(knowundo("list", "benchmarks", "--json").stdout)}
    assert set(rows) >= {"embedded", "knowundo", "lists", "lume", "muse", "rwku", "suite", "tofu"}
    assert all(row["licence"] and row["size"] and row["requires"] for row in rows.values())
    assert rows["tofu"]["domains"] == ["forget01", "forget05", "forget10"]
    plain = " ".join(knowundo("list", "benchmarks").stdout.split())
    assert "licence: CC-BY-4.0; Jin et al. 2024, arXiv:2406.10890" in plain
    assert "size: 4,000 questions on 200 authors; 6 MB" in plain
