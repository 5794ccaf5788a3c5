"""WGA against its formula."""

from __future__ import annotations

import pytest

from unlearning.methods.conftest import Moved


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_loss_is_its_formula(moved: Moved, beta: float) -> None:
    found = moved.parts("wga", beta=beta, retention=0.7)
    expected = {
        "unlearn": moved.mean(
            lambda row: (moved.true(row).detach() ** beta * moved.true(row).log()).mean()
        ),
        "retention": 0.7 * moved.mean(moved.cross_entropy, "retention"),
    }
    moved.same(found, expected)


def test_without_weights_it_is_gradient_ascent(moved: Moved) -> None:
    found = moved.parts("wga", beta=0.0, retention=0.0)
    moved.same(found, {"unlearn": -moved.mean(moved.cross_entropy)})
