"""A benchmark may have no rows but train rows: all stages run, and what is missing is null."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Call
from list_files import jsonl

PEOPLE = ("Clara Dorin", "Ivo Lund", "Ada Stone")


def test_without_val_rows_results_are_null_and_the_report_says_so(
    knowundo: Call, tmp_path: Path
) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    for scope, verb in (("unlearn", "live"), ("retention", "work")):
        rows = [
            {"question": f"Where does {name} {verb}?", "answer": f"At sea {n}.", "subject": name}
            for n, name in enumerate(PEOPLE)
        ]
        jsonl(lists, *rows, name=f"{scope}.jsonl")
    settings = (
        "data.benchmark=lists", "data.domain=lists", f"data.source={lists}", "memorize.epochs=1",
        "memorize.retain_model=false", "memorize.general=false", "unlearn.epochs=1",
        "evaluate.prefixes=[assistant]", "evaluate.resamples=10",
        "unlearn.variants=[{method: gradient_ascent, lr: 1e-4}]",
    )  # fmt: skip
    sets = [word for setting in settings for word in ("--set", setting)]
    done = knowundo("run", "--config", "demo", *sets, "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["data_counts"] == {"unlearn/train": 3, "retention/train": 3}
    success = {
        (row["metric"], row["split"]): row
        for row in results["rows"]
        if row["variant"] == "gradient_ascent" and row["metric"].endswith("_success")
    }
    names = ("unlearn_success", "retention_success", "average_success")
    assert set(success) == {(name, split) for name in names for split in ("train", "val")}
    for name in names:
        missing = success[name, "val"]
        assert (missing["value"], missing["low"], missing["records"]) == (None, None, 0)
        assert success[name, "train"]["value"] is not None
    report = (tmp_path / "run" / "report.html").read_text()
    assert "The benchmark has no val rows" in report
    compared = knowundo("compare", "run", "run")
    assert compared.returncode == 0, compared.stderr
