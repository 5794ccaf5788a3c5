"""Which models one forward scores, and what happens where they cannot share one."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.variant import ModelVariant
from knowundo.pipeline import scores
from knowundo.pipeline.evaluation import evaluate
from knowundo.pipeline.localization import localize
from knowundo.pipeline.memorization import memorize
from knowundo.pipeline.scores import is_whole_model, scoring_groups, unaltered_rows
from knowundo.pipeline.unlearning import unlearn
from knowundo.runs.run import Run
from knowundo.scoring.table import read_scores
from tiny_run import tiny_run

FULL, SMALL, LARGE = Adaptation("full"), Adaptation("lora", 2, 4), Adaptation("lora", 8, 16)


@pytest.fixture
def run(toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose folders are named after the shape of what they hold."""
    shapes = {"full": FULL, "small": SMALL, "large": LARGE}
    monkeypatch.setattr(scores, "adaptation_of", lambda folder: shapes[folder.name.split("-")[0]])
    return tiny_run(tmp_path / "run", toy_base)


def variants(*names: str, role: str = "given") -> list[ModelVariant]:
    return [ModelVariant(name, role, Path(name)) for name in names]


def groups(run: Run, monkeypatch: pytest.MonkeyPatch, found: Any, most: int) -> list[list[str]]:
    monkeypatch.setattr(Run, "variants", lambda _: found)
    monkeypatch.setattr(scores, "fill_a_batch", lambda *_: most)
    return [[variant.name for variant in group] for group in scoring_groups(run)]


def test_adapters_of_one_shape_share_a_forward(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    base = ModelVariant("base", "base")
    found = [base, *variants("small-1", "small-2", "small-3", "large-1", "small-4")]
    assert groups(run, monkeypatch, found, most=3) == [
        ["base", "small-1", "small-2"], ["small-3"], ["large-1"], ["small-4"],
    ]  # fmt: skip
    assert groups(run, monkeypatch, found, most=1) == [[v.name] for v in found]


def test_whole_models_come_last_and_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [*variants("full-1", "small-1", "full-2", "small-2")]
    assert [is_whole_model(run, variant) for variant in found] == [True, False, True, False]
    assert groups(run, monkeypatch, found, most=4) == [
        ["small-1", "small-2"], ["full-1"], ["full-2"],
    ]  # fmt: skip
    # The weights of an unlearned variant are of the run's own model, whatever was trained.
    (own,) = variants("full-3", role="unlearned")
    assert not is_whole_model(run, own)


def test_only_unaltered_questions_are_left() -> None:
    table = pd.DataFrame({"id": ["a", "a", "b"], "attack": ["", "direct prompt", ""]})
    assert unaltered_rows(table)["id"].tolist() == ["a", "b"]


def test_memory_that_runs_out_with_several_is_enough_for_one(
    toy_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tables as of a run in which nothing ran out, and a note that says so."""
    sets = ("evaluate.generate=[]", "data.subjects=1")
    plain, short = (tiny_run(tmp_path / name, toy_base, *sets) for name in ("plain", "short"))
    for one in (plain, short):
        for stage in (memorize, localize, unlearn):
            stage(one)
    monkeypatch.setattr(scores, "fill_a_batch", lambda *_: 3)
    evaluate(plain)
    real, sizes = scores._score_rows, list[int]()

    def limited(run: Run, forward: Any, *rest: Any) -> Any:
        sizes.append(forward.adapters)
        if forward.adapters > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(run, forward, *rest)

    monkeypatch.setattr(scores, "_score_rows", limited)
    evaluate(short)
    assert sizes == [3, 1, 1, 1]
    for name in ("base", "memorized", "gradient_ascent"):
        tables = [read_scores(one.scores(name) / "rows.parquet") for one in (plain, short)]
        pd.testing.assert_frame_equal(*tables)
    notes = [
        json.loads((short.scores(name) / "manifest.json").read_text()).get("notes", [])
        for name in ("base", "memorized", "gradient_ascent")
    ]
    assert any(
        "memory ran out with 3 adapters in a forward" in note for one in notes for note in one
    )


def test_other_errors_are_no_lack_of_memory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a size does not match")

    monkeypatch.setattr(scores, "can_batch_adapters", lambda *_: True)
    monkeypatch.setattr(scores, "batched_adapters", lambda *_: nullcontext())
    monkeypatch.setattr(scores, "_score_rows", broken)
    checkpoint: Any = None
    with pytest.raises(RuntimeError, match="a size does not match"):
        scores._tables(run, run.model, variants("small-1", "small-2"), checkpoint)
