"""JensUn against its formula."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch

from knowundo.errors import BadInput
from knowundo.unlearning.jensen_shannon import jensen_shannon, to_one_token
from unlearning.methods.conftest import Moved


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Divergence of distributions, where p may be 0."""
    return torch.where(p > 0, p * (p.clamp_min(1e-300) / q).log(), 0.0).sum(-1)


def jsd(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence of two distributions, by its definition."""
    middle = (p + q) / 2
    return (kl(p, middle) + kl(q, middle)) / 2


@pytest.mark.parametrize("target", ["No idea", "#"])
@pytest.mark.parametrize(("unlearn", "retention"), [(1.0, 1.0), (0.4, 0.0)])
def test_loss_is_its_formula(moved: Moved, target: str, unlearn: float, retention: float) -> None:
    found = moved.parts("jensun", target=target, unlearn=unlearn, retention=retention)
    ids = moved.model.tokenizer(target)["input_ids"]

    def to_target(row: Any) -> Any:
        current = moved.logits(row).softmax(-1)
        wanted = torch.zeros_like(current)
        for place in range(row.answer_length):
            wanted[place, ids[place % len(ids)]] = 1.0
        return jsd(wanted, current).mean()

    def to_memorized(row: Any) -> Any:
        return jsd(moved.memorized_logits(row).softmax(-1), moved.logits(row).softmax(-1)).mean()

    expected = {"unlearn": unlearn * moved.mean(to_target)}
    if retention:
        expected["retention"] = retention * moved.mean(to_memorized, "retention")
    moved.same(found, expected)
    assert 0 < found["unlearn"].item() < unlearn * log(2)


def test_a_target_without_tokens_is_refused(moved: Moved) -> None:
    with pytest.raises(BadInput, match="jensun: target: it has no token"):
        moved.parts("jensun", target="")


@pytest.mark.parametrize("logit", [-1e4, 0.0, 1e4])
def test_value_and_gradient_are_finite_in_float32(logit: float) -> None:
    """Where a probability is 0 or 1, too."""
    logits = torch.tensor([[logit, 0.0, 1.0]], requires_grad=True)
    for function, other in (
        (to_one_token, torch.tensor([0])),
        (jensen_shannon, torch.tensor([[0.0, 1e4, 0.0]])),
    ):
        (value,) = function(logits, other)
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert 0 <= value.item() <= log(2) + 1e-6
        assert gradient.isfinite().all()
