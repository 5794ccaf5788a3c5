"""ME+GD against its formula."""

from __future__ import annotations

from typing import Any

import pytest

from unlearning.methods.conftest import Moved


@pytest.mark.parametrize("unlearn", [0.1, 1.0])
def test_loss_is_its_formula(moved: Moved, unlearn: float) -> None:
    found = moved.parts("me_gd", unlearn=unlearn)

    def one(row: Any) -> Any:
        current = moved.logits(row).softmax(-1)
        uniform = 1 / current.shape[-1]
        return (uniform * (uniform / current).log()).sum(-1).mean()

    kept = moved.mean(moved.cross_entropy, "retention")
    moved.same(found, {"unlearn": unlearn * moved.mean(one), "retention": kept})
