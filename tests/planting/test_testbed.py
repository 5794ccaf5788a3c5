"""Each scope is learned through its own tensors only."""

from __future__ import annotations

import pytest
import torch

from conftest import naive_ce
from knowundo.data.batches import PairedBatch
from knowundo.data.encoded import Encoded
from knowundo.modeling.model import Model
from knowundo.planting import testbed
from knowundo.planting.plantings import Planting
from knowundo.planting.testbed import TestbedSettings, plant
from knowundo.training.trainer import train as real_train

Rows = dict[str, list[Encoded]]


@pytest.mark.parametrize(("kind", "name"), [("lora", "spread"), ("full", "overlap")])
def test_each_tensor_gets_the_gradient_of_its_scope(
    toy_base: str, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step: AdamW moves every weight against the sign of its own scope's gradient."""
    settings = TestbedSettings(
        toy_base, subjects=2, rank=2, rates={"lora": 1e-3, "full": 1e-3}, epochs=1, batch_size=100
    )
    seen: list[tuple[Planting, dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []

    def train(model: Model, batches: list[PairedBatch], loss, region, *rest, **hooks):  # type: ignore[no-untyped-def]
        (batch,) = batches
        before, gradients = model.state(), {}
        combination = hooks["hooks"].combination
        for scope in ("unlearn", "retention"):
            chosen = model.train_only(region)
            names = [n for n, _ in model.net.named_parameters() if n in set(region)]
            rows = getattr(batch, scope).encoded
            total = sum(naive_ce(model, row) for row in rows) / len(rows)
            found = torch.autograd.grad(total, chosen)
            for number, (name, value) in enumerate(zip(names, found, strict=True)):
                if combination.learns[number][scope == "retention"]:
                    gradients[name] = gradients.get(name, 0) + value
        curve = real_train(model, batches, loss, region, *rest, **hooks)
        moved = {n: v - before[n] for n, v in model.state().items()}
        seen.append((region, gradients, moved))
        return curve

    monkeypatch.setattr(testbed, "train", train)
    made = plant(name, kind, 0, settings)
    assert made.steps == 1
    region, gradients, moved = seen[0]
    assert set(region) == made.planting.unlearn | made.planting.retention == set(gradients)
    for name, change in moved.items():
        if name not in gradients:
            assert not change.any(), name
            continue
        gradient = gradients[name]
        sure = gradient.abs() > 1e-4 * gradient.abs().max().clamp_min(1e-3)
        assert torch.equal(change.sign()[sure], -gradient.sign()[sure]), name
    assert sum(bool(change.any()) for change in moved.values()) > len(gradients) // 3
