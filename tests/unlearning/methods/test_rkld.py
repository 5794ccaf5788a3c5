"""RKLD against its formula."""

from __future__ import annotations

from typing import Any

import pytest

from unlearning.methods.conftest import Moved


@pytest.mark.parametrize(("strength", "retention"), [(8.0, 0.0), (1.5, 0.5)])
def test_loss_is_its_formula(moved: Moved, strength: float, retention: float) -> None:
    generic = moved.generic_logits(strength, epochs=3, rate=1e-2)
    found = moved.parts("rkld", strength=strength, epochs=3, rate=1e-2, retention=retention)

    def one(row: Any) -> Any:
        now, teacher = moved.logits(row).softmax(-1), generic[row].softmax(-1)
        return (now * (now / teacher).log()).sum(-1).mean()

    expected = {"unlearn": moved.mean(one)}
    if retention:
        expected["retention"] = retention * moved.mean(moved.cross_entropy, "retention")
    moved.same(found, expected)
