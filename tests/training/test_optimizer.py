"""How long the learning rate rises."""

from __future__ import annotations

import pytest

from knowundo.training.optimizer import warmup_steps


@pytest.mark.parametrize(
    ("share", "steps", "wanted"),
    [
        (0.03, 1, 0),  # a single step at a rate of zero would train nothing
        (0.03, 2, 1),
        (0.03, 16, 1),  # round() gives 0
        (0.03, 33, 1),
        (0.03, 34, 2),
        (0.03, 50, 2),  # 25 steps an epoch, two epochs: the ascent on 400 rows
        (0.03, 100, 3),
        (0.1, 166, 17),
        (0.0, 16, 0),
        (1.0, 16, 15),
        (0.03, 0, 0),
    ],
)
def test_warm_up_is_rounded_up(share: float, steps: int, wanted: int) -> None:
    assert warmup_steps(share, steps) == wanted
