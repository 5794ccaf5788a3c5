"""JensUn++ against its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from knowundo.recipes.reading import load_recipe
from unlearning.methods.conftest import Moved
from unlearning.methods.test_jensun import jsd


@pytest.mark.parametrize(("first", "unlearn", "retention"), [(0.5, 1.0, 1.0), (0.8, 0.4, 0.0)])
def test_loss_is_its_formula(moved: Moved, first: float, unlearn: float, retention: float) -> None:
    weights = {"first": first, "unlearn": unlearn, "retention": retention}
    found = moved.parts("jensun_pp", **weights)

    def to_refusal(row: Any) -> Any:
        other = moved.other(row)
        current, labels = moved.logits(other).softmax(-1), other.ids[other.answer_from :]
        wanted = torch.zeros_like(current)
        wanted[range(len(labels)), list(labels)] = 1.0
        values = jsd(wanted, current)
        return first * values[0] + (1 - first) * values[1:].mean()

    def to_memorized(row: Any) -> Any:
        return jsd(moved.memorized_logits(row).softmax(-1), moved.logits(row).softmax(-1)).mean()

    expected = {"unlearn": unlearn * moved.mean(to_refusal)}
    if retention:
        expected["retention"] = retention * moved.mean(to_memorized, "retention")
    moved.same(found, expected)


def test_an_answer_of_one_token_has_the_whole_weight() -> None:
    from types import SimpleNamespace

    from knowundo.unlearning.methods.jensun_pp import _weights

    rows, lengths = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([3, 1, 2])
    half: Any = SimpleNamespace(batch=SimpleNamespace(rows=rows, lengths=lengths))
    found = _weights(half, 0.5, torch.float64)
    torch.testing.assert_close(found, torch.tensor([0.5, 0.25, 0.25, 1, 0.5, 0.5]).double())


def test_the_preset_balances_gradients() -> None:
    recipe, _ = load_recipe(None, ["unlearn.variants=[{preset: jensun_pp}]"])
    assert recipe.unlearn.variants[0].gradients == "balance"
