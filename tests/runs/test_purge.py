"""What a purge removes, redacts and records."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import Call
from knowundo.errors import BadInput
from knowundo.reporting.page import REDACTED
from knowundo.runs.purge import holdings, purge
from knowundo.storage.artifacts import MANIFEST
from knowundo.storage.integrity import read_seal, verify
from sealed_run import PRIVATE, sealed_run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return sealed_run(tmp_path)


def contains(out: Path, text: str) -> list[str]:
    found = []
    for file in out.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            if file.suffix == ".parquet":
                content = pd.read_parquet(file).to_csv().encode()
            if text.encode() in content:
                found.append(str(file.relative_to(out)))
    return found


def test_purge(out: Path, knowundo: Call) -> None:
    (out / "checkpoints" / "unlearned").mkdir(parents=True)
    (out / "checkpoints" / "unlearned" / "1.json").write_text(PRIVATE)
    assert len(contains(out, PRIVATE)) == 5
    asked = knowundo("purge", str(out))
    assert asked.returncode == 2
    assert "add --yes" in asked.stderr
    assert len(contains(out, PRIVATE)) == 5
    asked = knowundo("purge", str(out), "--yes")
    assert asked.returncode == 0
    assert contains(out, PRIVATE) == []
    assert holdings(out) == []
    left = {str(p.relative_to(out)) for p in out.iterdir() if not p.name.startswith(".")}
    assert left == {
        "regions", "unlearned", "scores", "recipe.yaml", "results.json", "purged.json", MANIFEST,
    }  # fmt: skip
    rows = pd.read_parquet(out / "scores" / "a" / "rows.parquet")
    assert rows["answer"][0].startswith("sha256:")
    assert rows["answer"][0].endswith(f"({len(PRIVATE)} characters)")
    assert rows["answer"][1] == "Pilot."
    for column, value in (("token_ends", 6), ("token_probabilities", 97)):
        assert rows[column][0] is None
        assert list(rows[column][1]) == [value]
    found = {one.name: one.state for one in verify(out)}
    assert found["memorized"] == found["lists"] == found["report.html"] == "purged"
    assert found["scores/a"] == found["unlearned/a"] == "ok"
    assert not any(one.bad for one in verify(out))
    record = json.loads((out / "purged.json").read_text())
    assert set(record["removed"]) == {"memorized", "checkpoints", "lists", "report.html"}
    assert set(record["redacted"]) == {"scores/a", "scores/b"}


def test_purge_keeps_a_redacted_report(out: Path) -> None:
    (out / "report.html").write_text(f"<head>{REDACTED}</head>")
    assert "report.html" not in holdings(out)


def test_a_killed_purge_is_resumed(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, remove, calls = read_seal(out).files["memorized"], shutil.rmtree, 0

    def killed(path: Any, *args: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt
        remove(path, *args, **options)

    monkeypatch.setattr("knowundo.runs.purge.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        purge(out)
    done = purge(out)
    assert done["memorized"] == before
    assert contains(out, PRIVATE) == []


def test_purge_names_a_directory_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no run"):
        purge(tmp_path)
