"""What artifacts depend on."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.modeling.variant import ModelVariant
from knowundo.pipeline.evaluation import evaluate
from knowundo.pipeline.memorization import memorize
from knowundo.scoring import table
from tiny_run import tiny_run

BASE = ModelVariant("base", "base")


def test_a_new_column_makes_scores_again(
    toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path, toy_base)
    memorize(run)
    evaluate(run)
    file = run.scores("base") / "rows.parquet"
    before = file.stat().st_mtime_ns
    evaluate(run)
    assert file.stat().st_mtime_ns == before
    monkeypatch.setattr(table, "COLUMNS", (*table.COLUMNS, "surprise"))
    evaluate(run)
    assert "surprise" in table.read_scores(file)


def test_scores_depend_on_their_version(
    toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path, toy_base)
    before = run.score_inputs(BASE)
    assert run.score_inputs(BASE) == before
    monkeypatch.setattr(table, "VERSION", table.VERSION + 1)
    assert run.score_inputs(BASE) != before
