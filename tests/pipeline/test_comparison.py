"""Two run directories are compared by their recipes, their results and their scored rows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from evaluation.score_tables import table
from knowundo.errors import BadInput
from knowundo.pipeline.comparison import compare
from knowundo.results import write_results
from knowundo.scoring.table import write_scores
from paper_results import results, row


def evaluated(out: Path, unlearn: float, domain: str = "privacy") -> Path:
    """A directory with the results and the train rows of one model, and no val rows."""
    rows = [
        row("memflex", "unlearn_success", "unlearn", unlearn, split="train"),
        row("memflex", "unlearn_success", "unlearn", None, records=0),
    ]
    (out / "scores" / "memflex").mkdir(parents=True)
    write_results(results(*rows, domain=domain), out / "results.json")
    accuracy = 1 - unlearn / 100
    scored = table(unlearn=[("A", accuracy), ("B", accuracy)]).assign(split="train", attack="")
    altered = scored.assign(attack="direct prompt", token_accuracy=1.0)  # is not to be counted
    for number, part in enumerate((scored, altered)):
        part["id"] = [f"{number}/{name}" for name in part["id"]]
    write_scores(pd.concat([scored, altered]), out / "scores" / "memflex" / "rows.parquet")
    return out


def test_runs_without_val_rows(tmp_path: Path) -> None:
    first = evaluated(tmp_path / "a", 40.0)
    second = evaluated(tmp_path / "b", 70.0, domain="copyright")
    keys, (found,) = compare(first, second)
    assert keys == [("data.domain", "privacy", "copyright")]
    assert (found.split, found.metric, found.change) == ("train", "unlearn_success", 30.0)
    # All rows of the same records: each subject differs by 30 points, altered questions aside.
    assert (found.low, found.high) == (pytest.approx(30), pytest.approx(30))


def test_scores_of_one_run_only_give_no_interval(tmp_path: Path) -> None:
    first, second = evaluated(tmp_path / "a", 40.0), evaluated(tmp_path / "b", 70.0)
    (second / "scores" / "memflex" / "rows.parquet").unlink()
    _, (found,) = compare(first, second)
    assert (found.change, found.low, found.high) == (30.0, None, None)


def test_a_directory_without_results_is_refused(tmp_path: Path) -> None:
    first = evaluated(tmp_path / "a", 40.0)
    with pytest.raises(BadInput, match=r"results\.json"):
        compare(first, tmp_path)
