"""The frozen reference against the memorized model."""

from __future__ import annotations

import pytest
import torch

from knowundo.data.batches import shuffled
from knowundo.data.encoded import Encoded
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.model import Model
from knowundo.unlearning.start import Start

Rows = dict[str, list[Encoded]]


def test_likelihoods_of_the_reference_are_computed_once_a_row(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)
    start.reference.hold(start.reference.rows)
    products = 0

    def head(states: torch.Tensor) -> torch.Tensor:
        nonlocal products
        products += 1
        return live_head(toy)(states)

    start.reference.head = head  # type: ignore[assignment]
    for batch in shuffled(toy_rows["unlearn"], 2, 3, 0, toy.pad):
        found = start.reference.half(batch).nll
        with torch.no_grad():
            plain = Half(batch, hidden_states(toy, batch), live_head(toy)).nll
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)
    assert products == len(toy_rows["unlearn"])
