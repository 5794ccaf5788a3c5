"""Training in bfloat16 against parameters that are of bfloat16."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from knowundo.training.bfloat16 import BFloat16AdamW, rounded, rounded_gradients


def pair() -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    """The same numbers in bfloat16 and in float32."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(40, 30, generator=generator).to(torch.bfloat16)
    return torch.nn.Parameter(value.clone()), torch.nn.Parameter(value.float())


def step(parameter: torch.nn.Parameter, optimizer: Any, number: int) -> None:
    """Three micro-batches, clipped."""
    generator = torch.Generator().manual_seed(number)
    optimizer.zero_grad()
    for _ in range(3):
        factor = torch.randn(parameter.shape, generator=generator).to(torch.bfloat16)
        (parameter * factor.to(parameter.dtype)).sum().backward()
    optimizer.step()


def test_steps_are_those_of_a_parameter_of_bfloat16() -> None:
    low, high = pair()
    options: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.01}
    first, second = torch.optim.AdamW([low], **options), BFloat16AdamW([high], **options)
    place = high.data_ptr()
    with rounded_gradients([high]):
        for number in range(5):
            step(low, first, number)
            step(high, second, number)
            assert low.grad is not None
            assert high.grad is not None
            assert torch.equal(low.grad.float(), high.grad)
            assert torch.equal(low.data.float(), high.data)
    assert high.data_ptr() == place  # in place: whoever holds the tensor sees it move
    assert high.dtype == torch.float32


def test_steps_resume_from_a_state_that_was_read_into_float32() -> None:
    found = []
    for interrupted in (False, True):
        _, parameter = pair()
        optimizer = BFloat16AdamW([parameter], lr=1e-3)
        for number in range(4):
            if interrupted and number == 2:
                state = optimizer.state_dict()
                optimizer = BFloat16AdamW([parameter], lr=1e-3)
                optimizer.load_state_dict(state)
                assert optimizer.state[parameter]["exp_avg"].dtype == torch.float32
            step(parameter, optimizer, number)
        found.append(parameter.detach())
    assert torch.equal(*found)


def test_outside_gradients_are_left_alone() -> None:
    _, parameter = pair()
    with rounded_gradients([parameter]):
        pass
    (parameter * torch.full_like(parameter, 1.0 + 2**-20)).sum().backward()
    assert parameter.grad is not None
    assert float(parameter.grad[0, 0]) == 1.0 + 2**-20
    assert float(rounded(parameter.grad)[0, 0]) == 1.0


@pytest.mark.parametrize(("rate", "moves"), [(1e-2, True), (1e-4, False)])
def test_updates_below_half_of_the_last_bit_are_lost(rate: float, moves: bool) -> None:
    parameter = torch.nn.Parameter(torch.ones(1))  # the next numbers are 1 - 2^-8 and 1 + 2^-7
    optimizer = BFloat16AdamW([parameter], lr=rate, weight_decay=0.0)
    for _ in range(20):
        parameter.grad = torch.ones(1)
        optimizer.step()
    assert bool(parameter.item() != 1.0) is moves
