"""Bytes are counted while tensors live, and under their kind."""

from __future__ import annotations

from pathlib import Path

import torch

from estimation.recipes import settings
from knowundo.data.batches import collate
from knowundo.estimation.fake_model import FakeModel
from knowundo.estimation.memory_trace import MemoryTrace
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.model import Model
from knowundo.recipes.reading import load_recipe
from knowundo.runs.run import Run


def test_live_bytes_are_counted_under_their_kind() -> None:
    weight = torch.nn.Parameter(torch.ones(100, 50))
    rows = torch.ones(10, 50)
    trace = MemoryTrace(vocabulary=100)
    trace.attribute("weights", [weight])
    with trace:
        loss = (rows @ weight.t()).logsumexp(-1).sum()
        loss.backward()
        trace.attribute("gradients", [weight.grad])  # type: ignore[list-item]
        del loss
    assert trace.now["weights"] == trace.now["gradients"] == 100 * 50 * 4
    assert trace.most["logits"] >= 10 * 100 * 4
    assert trace.now["logits"] == 0
    assert trace.peak >= 2 * 100 * 50 * 4


def test_fake_tensors_count_as_real_ones(toy_base: str) -> None:
    """The same forward and backward, on weights and on their outline."""
    counted = []
    for kind in (Model, FakeModel):
        model = kind(toy_base, Adaptation("lora", 2, 4))
        model.train_only(model.parameters())
        run = Run(load_recipe(None, settings(toy_base))[0], Path("nothing is written"))
        batch = collate(run.encoded("unlearn", "train", model=model)[:4], model.pad)
        trace = MemoryTrace(vocabulary=model.causal_lm().config.vocab_size)  # type: ignore[union-attr,arg-type]
        trace.attribute("weights", model.net.parameters())
        with trace:
            model.net(input_ids=batch.ids, attention_mask=batch.mask).logits.sum().backward()
        counted.append((trace.most["weights"], trace.most["logits"], trace.peak))
    assert counted[0] == counted[1]
