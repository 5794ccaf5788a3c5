"""The inverted hinge loss against its formula."""

from __future__ import annotations

from typing import Any

import torch

from unlearning.methods.conftest import Moved


def test_loss_is_its_formula(moved: Moved) -> None:
    found = moved.parts("ihl")

    def one(row: Any) -> Any:
        values = []
        for probabilities, label in zip(
            moved.logits(row).softmax(-1), row.ids[row.answer_from :], strict=True
        ):
            others = [p for token, p in enumerate(probabilities) if token != label]
            values.append(1 + probabilities[label] - torch.stack(others).max())
        return torch.stack(values).mean()

    kept = moved.mean(moved.cross_entropy, "retention")
    moved.same(found, {"unlearn": moved.mean(one), "retention": kept})
    assert 0 < found["unlearn"].item() < 2
