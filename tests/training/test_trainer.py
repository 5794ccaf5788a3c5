"""The learning-rate schedule of a training, step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from knowundo.data.batches import PairedBatch, paired
from knowundo.data.encoded import Encoded
from knowundo.modeling.forward import Forward
from knowundo.modeling.model import Model
from knowundo.modeling.step import Parts, Step
from knowundo.training import trainer as training
from knowundo.training.settings import TrainingSettings
from knowundo.training.trainer import train


def trained(model: Model, rows: list[Encoded], steps: int, **rest: Any) -> list[float]:
    """Train so many steps; the rate of each, as the optimizer had it."""
    rates, real = [], training.make_optimizer

    def recording(*given: Any, **named: Any) -> torch.optim.Optimizer:
        made = real(*given, **named)
        made.register_step_pre_hook(lambda one, *_: rates.append(one.param_groups[0]["lr"]))
        return made

    def loss(batch: PairedBatch) -> Parts:
        step = Step(Forward(model), batch, reference=lambda: None)  # type: ignore[arg-type, return-value]
        return {"unlearn": step.unlearn.mean(step.unlearn.mean_nll)}

    batches = paired(rows[:1], rows[:1], size=1, epochs=steps, seed=0, pad=model.pad)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "make_optimizer", recording)
        settings = TrainingSettings(lr=1e-3, seed=0, **rest)
        train(model, batches, loss, model.parameters(), settings)
    return rates


def test_sixteen_steps_have_one_of_warm_up(toy: Model, toy_rows: dict[str, list[Encoded]]) -> None:
    rates = trained(toy, toy_rows["unlearn"], 16, schedule="linear")
    # From the peak, reached in the second step, the rate falls by a fifteenth a step.
    assert rates == pytest.approx([0.0, *(1e-3 * (15 - n) / 15 for n in range(15))])


def test_a_single_step_trains(toy: Model, toy_rows: dict[str, list[Encoded]]) -> None:
    before = toy.state()
    assert trained(toy, toy_rows["unlearn"], 1) == [1e-3]
    moved = [(toy.state()[name] - value).abs().max() for name, value in before.items()]
    # Adam's first step is as long as the rate, wherever the gradient is not zero.
    assert float(max(moved)) == pytest.approx(1e-3, rel=1e-3)
