"""Mean gradients, a few tensors at a time."""

from __future__ import annotations

import pytest
import torch

from conftest import naive_ce
from knowundo.data.encoded import Encoded
from knowundo.localization.gradients import in_groups, mean_gradients
from knowundo.localization.noise import noisy_copies
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from localization.finding import find

Rows = dict[str, list[Encoded]]


def test_batched_gradients_equal_row_by_row(toy: Model, toy_rows: Rows) -> None:
    noisy = noisy_copies(toy_rows["unlearn"], copies=2, vocabulary=500, seed=0)
    batched = mean_gradients(toy, noisy, batch_size=4)
    chosen = toy.train_only(toy.parameters())
    sums = [torch.zeros_like(p) for p in chosen]
    for row in noisy:
        for total, value in zip(sums, torch.autograd.grad(naive_ce(toy, row), chosen), strict=True):
            total += value / len(noisy)
    for value, expected in zip(batched.values(), sums, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
        assert expected.abs().max() > 0


@pytest.mark.parametrize("held", [1, 2000, 10**9])
def test_gradients_of_few_tensors_at_a_time_give_the_same_region(
    toy_base: str, toy_rows: Rows, held: int
) -> None:
    model = Model(toy_base, Adaptation("full"), options=LoadingOptions(dtype="float64"))
    few, whole = find(model, toy_rows, held=held), find(model, toy_rows)
    assert few["regions"] == whole["regions"]
    for name in ("cosine", "magnitude"):
        one, other = ([row[name] for row in found["tensors"]] for found in (few, whole))  # type: ignore[attr-defined]
        assert one == pytest.approx(other, rel=1e-6, abs=1e-9)


def test_a_group_holds_no_more_than_it_may() -> None:
    sizes = {"a": 5, "b": 5, "c": 11, "d": 1, "e": 9}
    assert list(in_groups(sizes, 10)) == [["a", "b"], ["c"], ["d", "e"]]
    assert list(in_groups(sizes, None)) == [list(sizes)]
