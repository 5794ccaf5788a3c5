"""State beside the weights, taken and taken over again."""

from __future__ import annotations

import random
from copy import deepcopy

import numpy as np
import torch

from knowundo.training.resumable import OptimizerState, RandomState


def test_random_numbers_continue_where_they_were() -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    before = RandomState(torch.device("cpu")).state_dict()
    first = drawn()
    assert drawn() != first
    RandomState(torch.device("cpu")).load_state_dict(before)
    assert drawn() == first


def steps(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, count: int) -> None:
    for number in range(count):
        parameter.grad = torch.full_like(parameter, 0.1 * (number + 1))
        optimizer.step()


def test_an_optimizer_continues_to_the_same_bits() -> None:
    first, second = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    whole = torch.optim.AdamW([first], lr=0.1)
    steps(whole, first, 2)
    state = deepcopy(OptimizerState(whole).state_dict())  # as a file is a copy
    with torch.no_grad():
        second.copy_(first)
    resumed = torch.optim.AdamW([second], lr=0.5)  # the rate is part of the state
    OptimizerState(resumed).load_state_dict(state)
    steps(whole, first, 3)
    steps(resumed, second, 3)
    assert torch.equal(first, second)


def test_numbers_and_tensors_of_an_optimizer_stand_apart() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    steps(optimizer, parameter, 1)
    optimizer.state[parameter]["calls"] = 7
    state = OptimizerState(optimizer).state_dict()
    assert state.facts["numbers"] == {"0.calls": 7}
    assert set(state.tensors) == {"0.step", "0.exp_avg", "0.exp_avg_sq"}
    OptimizerState(optimizer).load_state_dict(state)
    assert optimizer.state[parameter]["calls"] == 7
