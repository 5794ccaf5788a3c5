"""Linear layers in the shape that suits the BLAS, against torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import linear as plain_product

from conftest import randomize
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.fast import linear
from knowundo.modeling.fast.linear import plain, product, quicken
from knowundo.modeling.fast.lora import fuse
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shape comes about with a few numbers."""
    for name, value in {"FEW": 3, "LARGE": 1, "STRIPE": 4}.items():
        monkeypatch.setattr(linear, name, value)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each product."""
    seen, real = list[int](), linear.product

    def watched(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(len(x))
        return real(x, *rest)

    monkeypatch.setattr(linear, "product", watched)
    return seen


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 9])
@pytest.mark.parametrize("columns", [3, 8, 19])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_products_are_torchs(rows: int, columns: int, bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(rows, 5).to(dtype), torch.randn(columns, 5).to(dtype)
    added = torch.randn(columns).to(dtype) if bias else None
    found, wanted = product(x, weight, added), plain_product(x, weight, added)
    torch.testing.assert_close(found, wanted)
    assert found.stride() == wanted.stride()


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5)])
@pytest.mark.parametrize("trained", [True, False])
def test_a_layer_computes_as_before(
    shape: tuple[int, ...], trained: bool, calls: list[int]
) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 19).requires_grad_(trained)
    quicken(layer)
    quicken(layer)  # twice is once
    found = []
    for forward in (layer, lambda x: torch.nn.Linear.forward(layer, x)):
        layer.zero_grad()
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
        output = forward(x)
        (output * torch.linspace(-1, 2, output.numel()).view_as(output)).sum().backward()
        found.append([output.detach(), x.grad, *(p.grad for p in layer.parameters())])
    torch.testing.assert_close(*found)
    assert bool(calls) is not trained  # gradients of weights are torch's to take
    with torch.no_grad():
        layer(x)
    assert calls


def test_a_layer_that_is_listened_to_is_heard() -> None:
    layer, heard = torch.nn.Linear(5, 19).requires_grad_(False), []
    quicken(layer)
    assert plain(layer)
    layer.register_forward_hook(lambda *given: heard.append(given))
    assert not plain(layer)
    layer(torch.randn(2, 5))
    assert heard


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_model_says_the_same(
    toy_base: str, kind: str, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for quick in (True, False):
        if not quick:
            monkeypatch.setattr(linear, "LARGE", 2**40)
        model = Model(toy_base, Adaptation(kind, rank=2), options=LoadingOptions(dtype="float32"))
        if kind == "lora":
            randomize(model)
        ids = torch.arange(12).view(3, 4)
        with torch.no_grad():
            said = model.net.generate(input_ids=ids, max_new_tokens=3, do_sample=False)
            found.append((said, model.net(input_ids=ids).logits))
        seen, calls[:] = set(calls), []
        assert ({3, 12} <= seen) is quick  # a step's rows, and all at the beginning
    torch.testing.assert_close(*found)


def test_a_head_may_be_adapted_afterwards(toy_base: str) -> None:
    """`adapt` puts a LoRA on a layer that computes in our way already."""
    model = Model(toy_base, Adaptation("lora", rank=2), options=LoadingOptions(dtype="float32"))
    head = model.causal_lm().get_output_embeddings()
    assert linear._ours(head)
    adapted: Any = torch.nn.Sequential(head)
    adapted.config = None
    net = get_peft_model(adapted, LoraConfig(r=2, target_modules=["0"]))
    fuse(net)
    layer = net.base_model.model[0]
    x = torch.randn(4, head.in_features)
    torch.testing.assert_close(layer(x), type(layer).forward(layer, x))
