"""What unlearning aims at."""

from __future__ import annotations

import pytest

from knowundo.pipeline.aims import prepare_unlearning
from knowundo.pipeline.memorization import memorize
from knowundo.recipes.schema import Stop
from knowundo.runs.run import Run
from knowundo.scoring.teacher_forcing import token_accuracy
from tiny_run import tiny_run


@pytest.fixture(scope="module")
def run(toy_base: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = tiny_run(tmp_path_factory.mktemp("runs") / "run", toy_base, "data.subjects=6")
    memorize(made)
    return made


def test_without_early_stopping_it_is_the_model_that_never_saw_the_rows(run: Run) -> None:
    _, aim, rule = prepare_unlearning(run, None)
    assert aim.name == "the base model"
    assert rule is None
    run.model.reset()
    assert aim.accuracy == token_accuracy(run.model, run.encoded("unlearn", "train"))


def test_a_given_target_is_taken(run: Run) -> None:
    _, aim, rule = prepare_unlearning(run, Stop(target=0.25))
    assert aim == ("unlearn.stop.target", 0.25)
    assert rule is not None


def test_else_it_is_what_the_model_cannot_know(run: Run) -> None:
    _, aim, _ = prepare_unlearning(run, Stop())
    assert aim.name == "rows that it cannot know"
    assert 0 <= aim.accuracy < 1
