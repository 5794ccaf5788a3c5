"""A run that is memorized and localized once, and training that is scripted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knowundo.pipeline.localization import localize
from knowundo.pipeline.memorization import memorize
from knowundo.sweeps import trials
from knowundo.unlearning.early_stopping import Evaluation, StoppingRule
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import Unlearned
from sweeps.runs import small


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is memorized and localized."""
    run = small(tmp_path_factory.mktemp("sweeps") / "run")
    memorize(run)
    localize(run)
    return run.out


@pytest.fixture
def out(prepared: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(prepared, tmp_path / "run"))


def seen(step: int, score: float, lost: float = 0.0) -> Evaluation:
    return Evaluation(
        step=step, unlearn=0.5, retention=0.9, forgotten=score, kept=1.0, lost=lost, score=score
    )


Score = Callable[[int, dict[str, Any]], float]
Observer = Callable[[Evaluation], bool]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Score], list[dict[str, Any]]]:
    """Replaces training by three evaluations whose scores a function tells; collects the calls."""

    def replace(score: Score) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []

        def train(
            start: Start, settings: UnlearnSettings, *, rule: StoppingRule, observer: Observer
        ) -> Unlearned:
            given = vars(settings)
            calls.append(given)
            for step in range(1, 4):
                if observer(seen(step, score(step, given))):
                    return Unlearned([], {"stopped": "pruned"})
            return Unlearned([], {"stopped": "end"})

        monkeypatch.setattr(trials, "unlearn", train)
        return calls

    return replace
