"""`knowundo list` prints what can be named in a recipe."""

from __future__ import annotations

import json

import pytest

from conftest import Call


@pytest.mark.parametrize(
    "kind", ["methods", "localizers", "metrics", "benchmarks", "presets", "templates"]
)
def test_list(knowundo: Call, kind: str) -> None:
    rows = json.loads(knowundo("list", kind, "--json").stdout)
    plain = knowundo("list", kind).stdout
    assert rows
    for row in rows:
        assert row["summary"]
        assert row["name"] in plain
