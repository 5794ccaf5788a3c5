"""The verdict of an erasure survives an evaluation that finds the same scores again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from erasure_facts import erasure_results, results_with
from knowundo.pipeline.evaluation import _held_erasure
from knowundo.results import Results, Row, VariantFacts, write_results
from tiny_run import Said


def scored(variant: str, value: float) -> Row:
    return Row(
        variant=variant, metric="exact_match", scope="unlearn", split="train", value=value,
        records=3, subjects=2,
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """A run's directory with the results of an erasure."""
    results = results_with(erasure_results())
    results.rows = [scored("memorized", 100.0), scored("erased", 0.1 + 0.2)]
    write_results(results, tmp_path / "results.json")
    return SimpleNamespace(out=tmp_path, reporter=Said())


def again(**given: Any) -> Results:
    """What an evaluation finds: the same scores, but for what is given."""
    rows = [scored("memorized", 100.0), scored("erased", 0.1 + 0.2)]
    return results_with(None).model_copy(update={"rows": rows} | given)


def test_the_same_scores_keep_it(run: Any) -> None:
    assert _held_erasure(run, again()) == erasure_results()


def test_another_model_beside_them_keeps_it(run: Any) -> None:
    results = again()
    results.rows.append(scored("given", 50.0))
    results.variants.append(VariantFacts(name="given", role="given"))
    assert _held_erasure(run, results) == erasure_results()


def test_an_attack_on_it_keeps_it(run: Any) -> None:
    results = again()
    attacked = scored("erased", 50.0).model_copy(update={"attack": "relearning: 20 steps"})
    results.rows.append(attacked)
    assert _held_erasure(run, results) == erasure_results()


def test_other_scores_drop_it_and_that_is_said(run: Any) -> None:
    rows = [scored("memorized", 100.0), scored("erased", 50.0)]
    assert _held_erasure(run, again(rows=rows)) is None
    assert run.reporter.lines == [
        "results.json: other scores than those of the verdict; run `erase` again"
    ]


def test_a_damaged_or_missing_file_has_none(run: Any) -> None:
    (run.out / "results.json").write_text("{")
    assert _held_erasure(run, again()) is None
    (run.out / "results.json").unlink()
    assert _held_erasure(run, again()) is None
    assert run.reporter.lines == []
