"""WHP against its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unlearning.methods.conftest import Moved


@pytest.mark.parametrize("strength", [1.0, 5.0])
def test_loss_is_its_formula(moved: Moved, strength: float) -> None:
    generic = moved.generic_logits(strength, epochs=3, rate=1e-2)
    found = moved.parts("whp", strength=strength, epochs=3, rate=1e-2)

    def one(row: Any) -> Any:
        labels = generic[row].argmax(-1)
        return -moved.logits(row).log_softmax(-1)[torch.arange(len(labels)), labels].mean()

    labels = [label for row in moved.rows["unlearn"] for label in generic[row].argmax(-1).tolist()]
    true = [token for row in moved.rows["unlearn"] for token in row.ids[row.answer_from :]]
    assert labels != true
    moved.same(found, {"unlearn": moved.mean(one)})
