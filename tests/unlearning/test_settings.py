"""Copies of weights that unlearning says it will hold, against those that it holds."""

from __future__ import annotations

from typing import Any

import pytest

from knowundo.data.encoded import Encoded
from knowundo.modeling.model import Model
from knowundo.unlearning.early_stopping import StoppingRule
from knowundo.unlearning.rates import unlearn_at_chosen_rate, unlearn_with_early_stopping
from knowundo.unlearning.settings import UnlearnSettings, copies_held
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]


@pytest.mark.parametrize(
    ("stopping", "searching", "keep_every"),
    [
        (False, False, None),
        (True, False, None),
        (False, True, None),
        (True, True, None),
        (True, False, 2),
        (False, False, 1),
    ],
)
def test_as_many_copies_are_held_as_are_said(
    toy: Model, toy_rows: Rows, stopping: bool, searching: bool, keep_every: int | None
) -> None:
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    settings = UnlearnSettings("gradient_ascent", 3, 2, 1, lr=1e-3, keep_every=keep_every)
    rule = StoppingRule(toy_rows["unlearn"], toy_rows["retention"], -1.0, 99.0, 9, 99)
    done: Any = None
    if searching and stopping:
        done = unlearn_with_early_stopping(start, rule, settings)
    elif searching:
        done = unlearn_at_chosen_rate(start, 0.5, settings)
    else:
        done = unlearn(start, settings, rule=rule if stopping else None)
    said = copies_held(settings, 9, stopping=stopping, searching=searching)
    said.pop("end", None)  # the stage's, while it writes the kept steps
    region = sum(parameter.nbytes for parameter in toy.parameters().values())
    assert toy.snapshots.peak == sum(said.values()) * region
    assert set(toy.snapshots.nbytes()) <= set(said)  # those of the attempts are dropped again
    assert [f"step {one.step}" for one in done.kept] == [n for n in said if n.startswith("step ")]
