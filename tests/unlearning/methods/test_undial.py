"""UNDIAL against its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unlearning.methods.conftest import Moved


@pytest.mark.parametrize(("strength", "retention"), [(10.0, 0.0), (2.0, 0.5)])
def test_loss_is_its_formula(moved: Moved, strength: float, retention: float) -> None:
    found = moved.parts("undial", strength=strength, retention=retention)

    def one(row: Any) -> Any:
        values = []
        for before, now, label in zip(
            moved.memorized_logits(row), moved.logits(row), row.ids[row.answer_from :], strict=True
        ):
            lowered = before.clone()
            lowered[label] -= strength
            target = lowered.exp() / lowered.exp().sum()
            values.append(-(target * now.log_softmax(-1)).sum())
        return torch.stack(values).mean()

    expected = {"unlearn": moved.mean(one)}
    if retention:
        expected["retention"] = retention * moved.mean(moved.cross_entropy, "retention")
    moved.same(found, expected)
