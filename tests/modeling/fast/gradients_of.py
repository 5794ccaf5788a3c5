"""Gradients of a loss, and what counts as the same."""

from __future__ import annotations

import torch

from knowundo.data.encoded import Encoded
from knowundo.modeling.model import Model

Rows = dict[str, list[Encoded]]


def gradients(model: Model, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    loss.backward()
    found = {n: p.grad for n, p in model.parameters().items() if p.grad is not None}
    model.net.zero_grad()
    return found


def near(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert any(bool(value.any()) for value in one.values())
    for name, value in one.items():
        # transformers' RMSNorm works in float32 whatever the dtype
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-6, msg=name)
