"""The training state: what it refuses, and what it forgets of a step that is repeated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import get_scheduler

from knowundo.errors import Diverged
from knowundo.modeling.model import Model
from knowundo.storage.checkpoints import State
from knowundo.training.state import TrainingState


class Counter:
    """Something resumable that counts how often it was rolled back."""

    def __init__(self) -> None:
        self.rolled_back = 0

    def state_dict(self) -> State:
        return State({"rolled_back": self.rolled_back})

    def load_state_dict(self, state: State) -> None:
        self.rolled_back = state.facts["rolled_back"]

    def rollback(self) -> None:
        self.rolled_back += 1


@pytest.fixture
def state(toy: Model) -> TrainingState:
    region = list(toy.parameters())[:2]
    optimizer = torch.optim.AdamW(toy.train_only(region), lr=1e-3)
    scheduler: Any = get_scheduler("constant", optimizer)
    return TrainingState(toy, region, optimizer, scheduler, [Counter()])


def gradients(state: TrainingState, value: float) -> None:
    for group in state.optimizer.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, value)


def test_a_loss_that_is_not_finite_is_refused(state: TrainingState) -> None:
    gradients(state, 1.0)
    state.parts = {"unlearn": torch.tensor(float("inf")), "retention": torch.tensor(1.0)}
    with pytest.raises(Diverged, match="step 1: the loss is no longer finite"):
        state.before_update()
    assert not state.updating


def test_a_gradient_that_is_not_finite_is_refused(state: TrainingState) -> None:
    gradients(state, float("nan"))
    state.parts = {"unlearn": torch.tensor(1.0)}
    with pytest.raises(Diverged, match="step 1: a gradient is no longer finite"):
        state.before_update()


def test_weights_are_good_once_the_next_step_is_finite(state: TrainingState) -> None:
    for step in range(3):
        gradients(state, 1.0)
        state.parts = {"unlearn": torch.tensor(float(step))}
        state.before_update()
        assert state.good_step == step
        state.after_step()
    assert [row["parts"]["unlearn"] for row in state.curve] == [0.0, 1.0, 2.0]
    assert [row["step"] for row in state.curve] == [1, 2, 3]


def test_a_repeated_step_begins_with_nothing(state: TrainingState) -> None:
    gradients(state, 1.0)
    state.parts = {"unlearn": torch.tensor(1.0)}
    state.before_step()
    first = torch.rand(())
    state.rollback()
    assert state.parts == {}
    assert all(p.grad is None for g in state.optimizer.optimizer.param_groups for p in g["params"])
    assert state.resumable[0].rolled_back == 1  # type: ignore[attr-defined]
    state.before_step()
    assert torch.equal(torch.rand(()), first)


def test_a_checkpoint_takes_no_copy_of_the_weights(state: TrainingState) -> None:
    own, before = state.model.parameters(), state.model.snapshots.taken
    held = state.state_dict().tensors
    places = {tensor.data_ptr() for tensor in held.values()}
    assert all(own[name].data_ptr() in places for name in state.region)
    assert state.model.snapshots.taken == before
