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


def test_more_runs_and_a_page(knowundo: Call, tmp_path: Path) -> None:
    runs = [
        written(tmp_path / name, value) for name, value in zip("abc", (40, 70, 10), strict=True)
    ]
    page = tmp_path / "page.html"
    done = knowundo("compare", *runs, "--html", str(page))
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("b against a") < done.stdout.index("c against a")
    assert done.stdout.splitlines()[-1] == f"page: {page}"
    assert "Comparison of runs" in page.read_text("utf-8")
    found = json.loads(knowundo("compare", *runs, "--json").stdout)["comparisons"]
    assert [(one["run"], one["differences"][0]["change"]) for one in found] == [
        ("b", 30),
        ("c", -30),
    ]
    refused = knowundo("compare", *runs, "--html", str(tmp_path / "no" / "page.html"))
    assert refused.returncode == 2
    assert "the folder is not there" in refused.stderr


def test_no_scores_in_common_are_no_empty_table(knowundo: Call, tmp_path: Path) -> None:
    first, second = written(tmp_path / "a", 40.0), written(tmp_path / "b", None)
    done = knowundo("compare", first, second)
    assert done.stdout.splitlines() == [
        "no scores to compare: the runs share no model that is scored on one split"
    ]
    assert json.loads(knowundo("compare", first, second, "--json").stdout)["split"] is None
