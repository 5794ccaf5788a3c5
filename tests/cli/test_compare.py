"""`knowundo compare` prints one table, and says which rows it compares."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Call
from knowundo.results import write_results
from paper_results import results, row


def written(out: Path, value: float | None) -> str:
    out.mkdir()
    found = results(row("memflex", "unlearn_success", "unlearn", value, split="train"))
    write_results(found, out / "results.json")
    return str(out)


def test_the_split_is_named(knowundo: Call, tmp_path: Path) -> None:
    first, second = written(tmp_path / "a", 40.0), written(tmp_path / "b", 70.0)
    done = knowundo("compare", first, second)
    assert done.returncode == 0, done.stderr
    assert "model, train rows" in done.stdout
    assert "Unlearn Success" in done.stdout
    found = json.loads(knowundo("compare", first, second, "--json").stdout)
    assert found["split"] == "train"
    assert [row["change"] for row in found["differences"]] == [30.0]


def test_no_scores_in_common_are_no_empty_table(knowundo: Call, tmp_path: Path) -> None:
    first, second = written(tmp_path / "a", 40.0), written(tmp_path / "b", None)
    done = knowundo("compare", first, second)
    assert done.stdout.splitlines() == [
        "no scores to compare: the runs share no model that is scored on one split"
    ]
    assert json.loads(knowundo("compare", first, second, "--json").stdout)["split"] is None
