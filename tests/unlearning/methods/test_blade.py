"""BLADE against its formula, and its multiplier from step to step."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch

from knowundo.registry import get
from unlearning.methods.conftest import Moved


@pytest.mark.parametrize(("tau", "epsilon"), [(1.0, 0.5), (0.94, 30.0)])
def test_loss_is_its_formula(moved: Moved, tau: float, epsilon: float) -> None:
    found = moved.parts("blade", tau=tau, epsilon=epsilon, multiplier=2.0)
    reached = []

    def lacking(row: Any) -> Any:
        shares = moved.logits(row).softmax(-1)
        entropy = -(shares * shares.log()).sum(-1)
        values = tau * log(shares.shape[-1]) - entropy
        reached.extend((values < 0).tolist())
        return torch.where(values > 0, values, 0.0).mean()

    violation = moved.mean(moved.cross_entropy, "retention") - epsilon
    expected = {"unlearn": moved.mean(lacking), "retention": 2 * violation}
    constraint = found.pop("constraint")
    torch.testing.assert_close(constraint, violation.detach())
    assert not constraint.requires_grad
    moved.same(found, expected)
    assert any(reached) == (tau < 1)
    assert not all(reached)


def test_the_multiplier_follows_the_violation() -> None:
    entry = get("method", "blade")
    assert entry.state_function is not None
    given = {"margin": 3.0, "epsilon": None, "multiplier": 1.0, "rho": 0.1}
    state = entry.first_state(entry.bind({"margin": 3.0}))
    assert state == {"multiplier": 1.0, "penalty": 0.0, "epsilon": 0.0}
    # The first step's violation is its cross-entropy.
    state = entry.state_function(state, {"constraint": 0.2}, 0.1, **given)
    assert state == pytest.approx({"multiplier": 1.0, "penalty": 0.0, "epsilon": 0.6})
    state = entry.state_function(state, {"constraint": 2.0}, 0.2, **given)
    assert state == pytest.approx({"multiplier": 1.2, "penalty": 0.2, "epsilon": 0.6})
    state = entry.state_function(state, {"constraint": -0.5}, 0.3, **given)
    assert state == pytest.approx({"multiplier": 1.195, "penalty": 0.0, "epsilon": 0.6})
    state = entry.state_function(state, {"constraint": -500.0}, 0.4, **given)
    assert state["multiplier"] == 0.0
    fixed = entry.first_state(entry.bind({"epsilon": 0.3}))
    fixed = entry.state_function(fixed, {"constraint": 1.0}, 0.1, **given | {"epsilon": 0.3})
    assert fixed == pytest.approx({"multiplier": 1.1, "penalty": 0.1, "epsilon": 0.3})
