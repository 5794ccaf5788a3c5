"""`knowundo data export` writes the benchmark's own files, and overwrites none."""

from __future__ import annotations

from pathlib import Path

from conftest import Call


def test_data_export(knowundo: Call, tmp_path: Path) -> None:
    done = knowundo("data", "export", "--out", "out", "--subjects", "3")
    assert done.returncode == 0, done.stderr
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json"))
    assert files == [
        f"out/{domain}/{scope}.json"
        for domain in ("copyright", "privacy")
        for scope in ("retention", "unlearn")
    ]
    again = knowundo("data", "export", "--out", "out", "--subjects", "3")
    assert again.returncode == 2
    assert "add --force" in again.stderr
