"""SimNPO against its formula."""

from __future__ import annotations

from typing import Any

import pytest

from unlearning.methods.conftest import Moved


@pytest.mark.parametrize(
    ("beta", "margin", "unlearn", "retention", "divergence"),
    [(2.5, 0.0, 0.1375, 1.0, 0.0), (0.7, 1.5, 2.0, 0.0, 0.5)],
)
def test_loss_is_its_formula(
    moved: Moved, beta: float, margin: float, unlearn: float, retention: float, divergence: float
) -> None:
    arguments: dict[str, Any] = {"beta": beta, "margin": margin, "unlearn": unlearn}
    found = moved.parts("simnpo", **arguments, retention=retention, divergence=divergence)

    def one(row: Any) -> Any:
        reward = beta * moved.true(row).log().sum() / row.answer_length
        return -(2 / beta) * (1 / (1 + (reward + margin).exp())).log()

    kept = retention * moved.mean(moved.cross_entropy, "retention")
    kept = kept + divergence * moved.mean(moved.kl, "retention")
    moved.same(found, {"unlearn": unlearn * moved.mean(one), "retention": kept})
