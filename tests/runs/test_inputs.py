"""What artifacts depend on."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.modeling.variant import ModelVariant
from knowundo.pipeline.evaluation import evaluate
from knowundo.pipeline.memorization import memorize
from knowundo.registry import ENTRIES
from knowundo.scoring import columns, table
from tiny_run import tiny_run

BASE = ModelVariant("base", "base")


PLUGIN = """
from knowundo.registry import metric, scorer

@metric(higher_is="remembered", unit="ratio")
@scorer(needs="tokens")
def longest_word(tokens):
    'The longest word of the answer.'
    return max(map(len, tokens.record.answer.split()))
"""


def test_a_file_with_a_scorer_and_metric_makes_scores_again(
    toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file, and nothing else, adds a column to the scores and rows to the results."""
    run = tiny_run(tmp_path / "run", toy_base)
    memorize(run)
    evaluate(run)
    file = run.scores("base") / "rows.parquet"
    before = file.stat().st_mtime_ns
    evaluate(run)
    assert file.stat().st_mtime_ns == before
    for kind in ("metric", "scorer"):
        monkeypatch.setitem(ENTRIES, kind, dict(ENTRIES[kind]))
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "longest.py").write_text(PLUGIN)
    monkeypatch.setenv("KNOWUNDO_PLUGINS", str(tmp_path / "plugins"))
    results = evaluate(run)
    rows = table.read_scores(file)
    longest = rows["answer"].map(lambda text: max(map(len, text.split())))
    assert (rows["longest_word"] == longest).all()
    own = (rows["scope"] == "unlearn") & (rows["split"] == "val")
    row = results.find("base", "longest_word", "unlearn", "val")
    assert row is not None
    assert row.value == pytest.approx(longest[own].mean())


def test_scores_depend_on_their_version(
    toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path, toy_base)
    before = run.score_inputs(BASE)
    assert run.score_inputs(BASE) == before
    monkeypatch.setattr(columns, "VERSION", columns.VERSION + 1)
    assert run.score_inputs(BASE) != before
