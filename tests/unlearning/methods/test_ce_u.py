"""CE-U against its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unlearning.methods.conftest import Moved


@pytest.mark.parametrize("skipped", [0, 1, 3])
def test_loss_is_its_formula(moved: Moved, skipped: int) -> None:
    """With 3, the shortest answer has no token that counts."""
    found = moved.parts("ce_u", skipped=skipped)

    def one(row: Any) -> Any:
        values = []
        for logits, label in list(zip(moved.logits(row), row.ids[row.answer_from :], strict=True))[
            skipped:
        ]:
            other = torch.arange(len(logits)) != label
            target = logits.detach()[other].exp() / logits.detach()[other].exp().sum()
            values.append(-(target * logits.log_softmax(-1)[other]).sum())
        return torch.stack(values).mean() if values else torch.zeros((), dtype=torch.float64)

    assert (min(row.answer_length for row in moved.rows["unlearn"]) <= skipped) == (skipped == 3)
    moved.same(found, {"unlearn": moved.mean(one)})
