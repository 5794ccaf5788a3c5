"""`knowundo sweep` prints the front, with the best trial starred."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from knowundo.cli.sweep import _show
from knowundo.sweeps.results import SweepResult
from knowundo.sweeps.space import Range
from knowundo.sweeps.trials import Trial

TRIAL = Trial(
    number=0, state="complete", params={"lr": 1e-3}, lr=1e-3, arguments={}, parameters=1200,
    step=3, unlearn=0.1, retention=0.9, forgotten=0.5, lost=2.0, score=0.6, seconds=1.0,
    reason=None,
)  # fmt: skip
FOUND = SweepResult(
    variant="npo", study="npo 1", target=0.1, space={"lr": Range(1e-4, 1e-2, 1e-3)},
    trials=[TRIAL, replace(TRIAL, number=1, score=0.7), replace(TRIAL, number=2, state="failed")],
    front=[0, 1], best=1, recipe="unlearn: {}\n", region=None,
)  # fmt: skip


def test_the_front_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    _show(FOUND, Path("sweep"))
    shown = capsys.readouterr().out
    assert "1 *" in shown
    assert "0 *" not in shown
    assert "trials: 2 complete, 1 failed" in shown
    assert "sweep/npo.html" in shown
    assert shown.endswith("unlearn: {}\n")


def test_no_complete_trial_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    _show(replace(FOUND, trials=[], front=[], best=None, recipe=None), Path("sweep"))
    assert "none began" in capsys.readouterr().out
