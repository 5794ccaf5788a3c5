"""FLAT against its formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from knowundo.errors import BadInput
from knowundo.registry import get
from unlearning.methods.conftest import Moved

Pair = tuple[Callable[[Any], Any], Callable[[Any], Any]]

# g* of the paper's table, and f* of what it gives
PAIRS: dict[str, Pair] = {
    "total_variation": (lambda v: torch.tanh(v) / 2, lambda t: t),
    "kl": (lambda v: v, lambda t: (t - 1).exp()),
    "pearson": (lambda v: v, lambda t: t**2 / 4 + t),
    "jensen_shannon": (
        lambda v: (2 / (1 + (-v).exp())).log(),
        lambda t: -(2 - t.exp()).log(),
    ),
}


@pytest.mark.parametrize("f", PAIRS)
def test_loss_is_its_formula(moved: Moved, f: str) -> None:
    found = moved.parts("flat", f=f, answers="refusal")
    g, conjugate = PAIRS[f]

    def one(row: Any) -> Any:
        other = moved.true(moved.other(row)).mean()
        return conjugate(g(moved.true(row).mean())) - g(other)

    moved.same(found, {"unlearn": moved.mean(one)})


def test_retention_terms_are_added(moved: Moved) -> None:
    found = moved.parts("flat", retention=0.5, divergence=2.0)
    kept = 0.5 * moved.mean(moved.cross_entropy, "retention")
    kept = kept + 2 * moved.mean(moved.kl, "retention")
    torch.testing.assert_close(found["retention"], kept, rtol=1e-9, atol=1e-9)


def test_another_divergence_is_refused() -> None:
    with pytest.raises(BadInput, match="method flat: f: "):
        get("method", "flat").bind({"f": "hellinger"})
