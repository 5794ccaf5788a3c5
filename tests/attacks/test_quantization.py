"""Rounded weights, computed by hand, and put back afterwards."""

from __future__ import annotations

import pytest
import torch

from attacks.attacking import Rows, base_weights, under_attack
from knowundo.attacks.quantization import NF4, quantization, quantized
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.base_weights import merged_base
from knowundo.modeling.model import Model


def test_int8_is_scaled_by_each_output_channel() -> None:
    weight = torch.tensor([[1.27, 0.004, -0.016], [0.0, -12.7, 0.17]])
    # Steps of 0.01 and of 0.1: 0.4 steps are none, -1.6 are two, 1.7 are two.
    expected = torch.tensor([[1.27, 0.0, -0.02], [0.0, -12.7, 0.2]])
    torch.testing.assert_close(quantized(weight, "int8"), expected)


def test_int4_is_scaled_by_each_block() -> None:
    weight = torch.tensor([[0.7, 0.16, -7.0, 3.4], [0.0, 0.0, 1.4, 0.2]])
    # Blocks of two in the order of the memory: steps of 0.1, 1, none, 0.2.
    expected = torch.tensor([[0.7, 0.2, -7.0, 3.0], [0.0, 0.0, 1.4, 0.2]])
    torch.testing.assert_close(quantized(weight, "int4", block=2), expected)


def test_a_last_block_may_be_short() -> None:
    weight = torch.tensor([[0.7, 0.16, 0.05]])
    torch.testing.assert_close(quantized(weight, "int4", block=2), torch.tensor([[0.7, 0.2, 0.05]]))


def test_nf4_takes_the_nearest_of_its_values() -> None:
    weight = torch.tensor([[2.0, -2.0, 0.0, 0.9, -0.1, 0.06]])
    # Of shares 1, -1, 0, 0.45, -0.05 (nearer to 0 than... -0.091) and 0.03.
    expected = torch.tensor([[2.0, -2.0, 0.0, 2 * 0.44070982933044434, 2 * NF4[6], 0.0]])
    torch.testing.assert_close(quantized(weight, "nf4", block=6), expected)


def test_nf4_is_that_of_bitsandbytes() -> None:
    pytest.importorskip("bitsandbytes")
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(quantized(weight, "nf4"), quantized(weight, "bitsandbytes-nf4"))


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_merged_weights_are_rounded_and_put_back(
    toy_base: str, toy_rows: Rows, kind: str
) -> None:
    model = Model(toy_base, Adaptation(kind))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters().values():
            parameter.add_(0.05)
    state, base = model.state(), base_weights(model)
    attacked = under_attack(model, toy_rows)
    attacked.score("before")
    quantization(attacked, formats=("int8", "int4"))
    losses = {name: table["mean_nll"] for name, table in attacked.tables.items()}
    far = {name: float((losses[name] - losses["before"]).abs().mean()) for name in ("int8", "int4")}
    assert 0 < far["int8"] < far["int4"]
    attacked.score("after")
    assert losses["before"].equals(attacked.tables["after"]["mean_nll"])
    assert all(torch.equal(value, state[name]) for name, value in model.state().items())
    assert all(torch.equal(value, base[name]) for name, value in base_weights(model).items())


def test_a_merged_base_computes_what_base_and_adapter_do(toy: Model, toy_rows: Rows) -> None:
    attacked = under_attack(toy, toy_rows)
    attacked.score("beside")
    with merged_base(toy):
        attacked.score("merged")
    torch.testing.assert_close(
        torch.tensor(attacked.tables["merged"]["mean_nll"]),
        torch.tensor(attacked.tables["beside"]["mean_nll"]),
    )
