"""UNDO: its loss against the formula, and the weights that it begins with."""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from knowundo.errors import BadInput
from knowundo.registry import get
from knowundo.unlearning.methods.undo import damaged
from unlearning.methods.conftest import Moved


def test_loss_is_its_formula(moved: Moved) -> None:
    found = moved.parts("undo")
    moved.same(found, {"retention": moved.mean(moved.kl, "retention")})


def test_weights_are_shrunk_and_drawn_anew() -> None:
    weights = {
        "layers.0.lora_A.default.weight": torch.ones(4, 300),
        "layers.0.lora_B.default.weight": torch.full((300, 100), 2.0),
        "norm.weight": torch.ones(500),
    }
    plain = damaged(weights, {}, 0, shrink=0.25, noise=0.0)
    assert set(plain) == {"layers.0.lora_B.default.weight", "norm.weight"}
    assert all(torch.equal(value, 0.75 * weights[name]) for name, value in plain.items())
    noisy = damaged(weights, {}, 0, shrink=0.25, noise=0.4)
    assert torch.equal(noisy["norm.weight"], plain["norm.weight"])
    name = "layers.0.lora_B.default.weight"
    drawn = noisy[name] - plain[name]
    spread = 0.25 * 0.4 * sqrt(2 / 400)  # Xavier's, of 300 and 100 dimensions
    assert drawn.std().item() == pytest.approx(spread, rel=0.02)
    assert drawn.mean().abs().item() < 0.05 * spread
    assert torch.equal(damaged(weights, {}, 0, shrink=0.25, noise=0.4)[name], noisy[name])
    assert not torch.equal(damaged(weights, {}, 1, shrink=0.25, noise=0.4)[name], noisy[name])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layers.0.lora_magnitude_vector.default.weight", "not linear in a DoRA"),
        ("layers.0.lora_A.default.weight", "no B matrix"),
    ],
)
def test_a_region_without_weights_to_damage_is_refused(name: str, message: str) -> None:
    """A DoRA's magnitude is a length of the base's weights: a share of it is no share of a LoRA."""
    with pytest.raises(BadInput, match=message):
        damaged({name: torch.ones(4, 4)}, {}, 0, shrink=0.25, noise=0.0)


def test_the_source_of_its_beginning_counts() -> None:
    assert "def damaged(" in get("method", "undo").source
