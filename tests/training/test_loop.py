"""The training loop: micro-batches, accumulation, and where it ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from knowundo.data.batches import Batch, shuffled
from knowundo.data.encoded import Encoded
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.model import Model
from knowundo.modeling.step import Parts
from knowundo.storage.job import Job
from knowundo.training.settings import TrainingHooks, TrainingSettings
from knowundo.training.trainer import train

Rows = dict[str, list[Encoded]]


class Losses:
    """The mean cross-entropy of a batch, and what each call of it was."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.seen: list[float] = []

    def __call__(self, batch: Batch) -> Parts:
        half = Half(batch, hidden_states(self.model, batch), live_head(self.model))
        part = half.mean(half.mean_nll)
        self.seen.append(float(part.detach()))
        return {"part": part}


def trained(toy: Model, rows: list[Encoded], accumulation: int = 1, **options: Any) -> Any:
    losses, batches = Losses(toy), shuffled(rows, 2, 3, 0, toy.pad)
    settings = TrainingSettings(lr=1e-3, seed=0, accumulation=accumulation)
    return train(toy, batches, losses, toy.parameters(), settings, **options), losses


def test_a_row_of_the_curve_is_the_mean_over_its_batches(toy: Model, toy_rows: Rows) -> None:
    curve, losses = trained(toy, toy_rows["unlearn"][:4], accumulation=2)
    assert len(losses.seen) == 6
    assert [row["step"] for row in curve] == [1, 2, 3]
    for number, row in enumerate(curve):
        pair = losses.seen[2 * number : 2 * number + 2]
        assert row["parts"]["part"] == pytest.approx(sum(pair) / 2)


def test_a_last_step_of_fewer_batches_is_their_mean_too(toy: Model, toy_rows: Rows) -> None:
    curve, losses = trained(toy, toy_rows["unlearn"][:4], accumulation=4)
    assert len(curve) == 2
    assert curve[-1]["parts"]["part"] == pytest.approx(sum(losses.seen[4:]) / 2)


def test_micro_batches_add_up_to_their_batch(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    memorized = toy.state()
    whole, _ = trained(toy, toy_rows["unlearn"][:4])
    end = toy.state()
    toy.overwrite(memorized)
    monkeypatch.setattr(Model, "tokens", 1)
    cut, losses = trained(toy, toy_rows["unlearn"][:4])
    assert len(losses.seen) == 12  # of one row each
    assert [row["parts"]["part"] for row in cut] == [
        pytest.approx(row["parts"]["part"], rel=1e-6) for row in whole
    ]
    # Adam divides gradients by their size, and their rounding with them.
    assert all(torch.allclose(toy.state()[n], v, rtol=0, atol=1e-5) for n, v in end.items())


def test_it_ends_where_it_is_told_to_and_reports_each_step(toy: Model, toy_rows: Rows) -> None:
    told: list[tuple[int, int]] = []
    job = Job(progress=lambda done, total: told.append((done, total)))
    hooks = TrainingHooks(stop=lambda: len(told) == 2)
    curve, _ = trained(toy, toy_rows["unlearn"][:4], hooks=hooks, job=job)
    assert len(curve) == 2
    assert told == [(1, 6), (2, 6)]
    assert not toy.net.training
    assert not any(parameter.requires_grad for parameter in toy.net.parameters())
