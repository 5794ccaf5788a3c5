"""SatImp against its formula."""

from __future__ import annotations

from typing import Any

import pytest

from unlearning.methods.conftest import Moved


@pytest.mark.parametrize(("saturation", "importance"), [(5.0, 1.0), (0.5, 2.0), (0.0, 1.0)])
def test_loss_is_its_formula(moved: Moved, saturation: float, importance: float) -> None:
    found = moved.parts("satimp", saturation=saturation, importance=importance)

    def one(row: Any) -> Any:
        likely = moved.true(row)
        weight = likely.detach() ** saturation * (1 - likely.detach()) ** importance
        return (weight * likely.log()).mean()

    kept = 0.1 * moved.mean(moved.cross_entropy, "retention")
    moved.same(found, {"unlearn": moved.mean(one), "retention": kept})
