"""A fused LoRA layer against peft's own: numbers, gradients, what is held, and what is left."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from conftest import randomize, records
from knowundo.data.encoding import encode
from knowundo.localization.gradients import mean_gradients
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.fast import lora, packing
from knowundo.modeling.fast.lora import fuse
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model

SHAPES = [((5,), 7, 4), ((2, 3), 6, 11), ((2, 1, 4), 16, 16), ((0,), 3, 5)]


def made(
    inputs: int = 6,
    outputs: int = 11,
    *,
    bias: bool = True,
    dtype: torch.dtype = torch.float64,
    base: Callable[..., torch.nn.Module] = torch.nn.Linear,
    **rest: Any,
) -> Any:
    """A fused net of one layer, `net[0]`, whose LoRA has random values."""
    torch.manual_seed(0)
    net: Any = torch.nn.Sequential(base(inputs, outputs, bias=bias)).to(dtype)
    config = LoraConfig(**{"r": 3, "lora_alpha": 5, "target_modules": ["0"]} | rest)
    net = get_peft_model(net, config).base_model.model
    for name, parameter in net.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter).data = parameter.data.to(dtype)
    fuse(net)
    return net


def rows(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def peft_forward(layer: Any, x: torch.Tensor, **rest: Any) -> torch.Tensor:
    return Linear.forward(layer, x, **rest)


def gradients(
    layer: Any, forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> list[torch.Tensor | None]:
    """Output, and gradients of x and of all parameters, of a loss that weighs outputs unequally."""
    layer.zero_grad()
    x = x.detach().requires_grad_(x.requires_grad)
    output = forward(x)
    if output.requires_grad:
        (output * torch.linspace(-1, 2, output.numel()).view_as(output)).sum().backward()
    return [output.detach(), x.grad, *(p.grad for p in layer.parameters())]


def assert_as_peft(layer: Any, x: torch.Tensor, rtol: float = 1e-12) -> None:
    own = gradients(layer, layer, x)
    for one, other in zip(own, gradients(layer, lambda x: peft_forward(layer, x), x), strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            scale = float(other.abs().max()) if other.numel() else 1.0
            torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * scale)
            assert one.stride() == other.stride()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each call in the cheap order."""
    seen: list[int] = []
    compute = lora._output

    def watched(*tensors: Any) -> Any:
        seen.append(1)
        return compute(*tensors)

    monkeypatch.setattr(lora, "_output", watched)
    return seen


@pytest.mark.parametrize(("shape", "inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)]
)
def test_output_and_gradients_are_pefts(
    calls: list[int],
    shape: tuple[int, ...],
    inputs: int,
    outputs: int,
    bias: bool,
    dtype: torch.dtype,
    rtol: float,
) -> None:
    net = made(inputs, outputs, bias=bias, dtype=dtype)
    assert_as_peft(net[0], rows(*shape, inputs, dtype=dtype).requires_grad_(), rtol)
    assert len(calls) == 1


@pytest.mark.parametrize("of_x", [True, False])
@pytest.mark.parametrize("trained", ["AB", "A", "B", ""])
def test_gradients_of_some_are_pefts(calls: list[int], trained: str, of_x: bool) -> None:
    layer = made()[0]
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(any(f"lora_{tensor}" in name for tensor in trained))
    assert_as_peft(layer, rows(2, 4, 6).requires_grad_(of_x))
    assert len(calls) == 1


@pytest.mark.parametrize("of_x", [True, False])
@pytest.mark.parametrize("trained", ["AB", "A", "B", ""])
def test_only_what_is_needed_is_held(trained: str, of_x: bool) -> None:
    layer = made()[0]
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(any(f"lora_{tensor}" in name for tensor in trained))
    held: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(tuple(t.shape)) or t, id):
        layer(rows(4, 6).requires_grad_(of_x))
    x, hidden, weight, down, up = (4, 6), (3, 4), (11, 6), (3, 6), (11, 3)
    wanted = [x] if "A" in trained else []
    wanted += [hidden] if "B" in trained else []
    wanted += [weight, down] if of_x else []
    wanted += [up] if of_x or "A" in trained else []
    assert sorted(held) == sorted(wanted)


def test_gradients_are_those_of_differences(calls: list[int]) -> None:
    layer = made()[0]
    first, second = (layer.get_parameter(f"lora_{name}.default.weight") for name in "AB")

    def output(x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return lora._Adapted.apply(x, layer.base_layer.weight, None, down, up, 0.7)

    assert torch.autograd.gradcheck(output, (rows(4, 6).requires_grad_(), first, second))
    assert calls


def test_no_gradient_of_a_gradient_is_wrong_in_silence() -> None:
    layer, x = made()[0], rows(4, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


def test_without_gradients_the_output_is_the_same(calls: list[int]) -> None:
    layer, x = made()[0], rows(2, 4, 6)
    with torch.no_grad():
        quiet = layer(x)
    assert torch.equal(quiet, layer(x))
    assert len(calls) == 2


def test_rows_may_lie_anyhow_and_outputs_may_be_overwritten() -> None:
    layer = made()[0]
    for x in (rows(6, 4).T, rows(4, 2, 6).transpose(0, 1), rows(6), rows(1, 6).expand(3, 6)):
        assert_as_peft(layer, x.requires_grad_())
        assert_as_peft(layer, x.detach())
    doubled = gradients(layer, lambda x: layer(x).mul_(2), rows(4, 6).requires_grad_())
    single = gradients(layer, lambda x: 2 * layer(x), rows(4, 6).requires_grad_())
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(doubled, single, strict=True))
    layer.zero_grad()
    layer(rows(4, 6)).sum().backward()  # a gradient of one number, expanded


def test_the_same_bits_each_time() -> None:
    layer = made(64, 96, dtype=torch.float32)[0]
    x = rows(50, 64, dtype=torch.float32).requires_grad_()
    first, second = gradients(layer, layer, x), gradients(layer, layer, x)
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_checkpointed(calls: list[int]) -> None:
    layer, x = made()[0], rows(4, 6).requires_grad_()
    again = gradients(layer, lambda x: checkpoint(layer, x, use_reentrant=False), x)
    plain = gradients(layer, layer, x)
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(again, plain, strict=True))
    assert len(calls) == 3


def test_fake_tensors(calls: list[int]) -> None:
    layer, x = made(dtype=torch.float32)[0], rows(2, 4, 6, dtype=torch.float32)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for module in layer.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    fake = torch.nn.Parameter(mode.from_tensor(parameter.data))
                    module._parameters[name] = fake.requires_grad_(parameter.requires_grad)
        x = mode.from_tensor(x).requires_grad_()
    output = layer(x)
    output.sum().backward()
    assert output.shape == (2, 4, 11)
    assert x.grad is not None
    assert x.grad.shape == x.shape
    trained = [p for p in layer.parameters() if p.requires_grad]
    assert [p.grad.shape for p in trained] == [p.shape for p in trained]
    assert len(calls) == 1


def test_a_copy_computes_with_its_own_tensors(calls: list[int]) -> None:
    net = made()
    copy, x = deepcopy(net), rows(4, 6)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        assert_as_peft(copy[0], x)
        assert copy(x).abs().max() > 0
    assert calls


def test_fusing_twice_is_fusing_once(calls: list[int]) -> None:
    net = made()
    forward = net[0].forward
    fuse(net)
    assert net[0].forward is forward


def test_adapters_that_change_between_calls(calls: list[int]) -> None:
    """Off, merged, another one, two at once: peft's numbers to the bit, where it is not plain."""
    net, x = made(), rows(4, 6)
    layer = net[0]

    def is_pefts(fused: bool, **rest: Any) -> bool:
        before = len(calls)
        own, other = layer(x, **rest), peft_forward(layer, x, **rest)
        assert fused == (len(calls) > before)
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)
        return fused or torch.equal(own, other)

    assert is_pefts(True)
    layer.enable_adapters(False)
    assert is_pefts(False)
    assert torch.equal(layer(x), layer.base_layer(x))
    layer.enable_adapters(True)
    assert is_pefts(True)
    layer.merge()
    assert is_pefts(False)
    layer.unmerge()
    assert is_pefts(True)
    before = layer(x)
    layer.update_layer("other", 2, lora_alpha=3, config=LoraConfig(r=2, lora_alpha=3))
    torch.nn.init.normal_(layer.lora_B["other"].weight)
    layer.set_adapter("other")
    assert is_pefts(True)
    assert not torch.allclose(layer(x), before)
    layer.set_adapter(["default", "other"])
    assert is_pefts(False)
    layer.set_adapter("default")
    assert is_pefts(False, adapter_names=["other", "__base__", "default", "other"])
    layer.set_adapter("none")
    assert is_pefts(False)


@pytest.mark.parametrize(
    "rest", [{"use_dora": True}, {"lora_bias": True}, {"use_rslora": True}], ids=str
)
def test_more_than_two_matrices(calls: list[int], rest: dict[str, Any]) -> None:
    layer = made(**rest)[0]
    assert_as_peft(layer, rows(4, 6).requires_grad_())
    assert bool(calls) == ("use_rslora" in rest)  # which is no more than another s


def exactly_pefts(layer: Any, x: torch.Tensor) -> bool:
    """Both in one state of the random numbers."""
    found = []
    for forward in (layer, lambda x: peft_forward(layer, x)):
        torch.manual_seed(7)
        found.append(gradients(layer, forward, x))
    return all(a is b is None or torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_dropout(calls: list[int]) -> None:
    layer, x = made(lora_dropout=0.5)[0], rows(4, 6).requires_grad_()
    assert exactly_pefts(layer.train(), x)
    torch.manual_seed(0)
    assert not torch.equal(layer(x), layer(x))
    assert exactly_pefts(layer.eval(), x)
    assert not calls


def test_autocast(calls: list[int]) -> None:
    layer, x = made(dtype=torch.float32)[0], rows(4, 6, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        assert exactly_pefts(layer, x)
    assert not calls
    layer(x)
    assert calls


class Scaled(torch.nn.Linear):
    """A layer that is more than its weight, as one of 4 bits is."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 3 * super().forward(input)


def test_another_class_of_base(calls: list[int]) -> None:
    layer, x = made(base=Scaled)[0], rows(4, 6).requires_grad_()
    assert type(layer) is Linear
    assert exactly_pefts(layer, x)
    assert not calls


def test_a_base_of_four_bits(calls: list[int]) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")

    def packed(*sizes: int, bias: bool) -> torch.nn.Module:
        return bitsandbytes.nn.Linear4bit(*sizes, bias=bias).to("cpu")  # packs

    layer = made(64, 64, dtype=torch.float32, base=packed)[0]
    assert layer.base_layer.weight.dtype == torch.uint8
    x = rows(4, 64, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(layer(x), type(layer).forward(layer, x))
    assert not calls


def test_a_base_of_half_precision(calls: list[int]) -> None:
    """A and B are cast, and their gradients are float32 again."""
    layer = made(dtype=torch.float32)[0]
    layer.base_layer.bfloat16()
    x = rows(4, 6, dtype=torch.bfloat16).requires_grad_()
    assert layer(x).dtype == torch.bfloat16
    assert_as_peft(layer, x, 0.05)
    assert len(calls) == 2


def test_a_lora_of_another_precision(calls: list[int]) -> None:
    layer = made(dtype=torch.float64)[0]
    layer.base_layer.float()
    x = rows(4, 6, dtype=torch.float32).requires_grad_()
    assert exactly_pefts(layer, x)
    assert not calls


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_base_that_is_trained(calls: list[int], name: str) -> None:
    layer, x = made()[0], rows(4, 6).requires_grad_()
    layer.base_layer.get_parameter(name).requires_grad_()
    assert exactly_pefts(layer, x)
    assert layer.base_layer.get_parameter(name).grad.abs().max() > 0
    assert not calls
    with torch.no_grad():
        layer(x)
    assert calls


@pytest.mark.parametrize("place", ["base_layer", "lora_A.default", "lora_B.default"])
def test_hooks_are_called(calls: list[int], place: str) -> None:
    layer, x = made()[0], rows(4, 6).requires_grad_()
    with layer.get_submodule(place).register_forward_hook(lambda module, args, output: 2 * output):
        assert exactly_pefts(layer, x)
    assert not calls


def by_peft(model: Model) -> Model:
    """The model without what fuse did to it."""
    for module in model.net.modules():
        if type(module) is Linear:
            del module.forward
    return model


@pytest.mark.parametrize("recompute", [False, True])
def test_a_model_trains_as_by_peft(calls: list[int], recompute: bool) -> None:
    found = []
    for change in (lambda model: model, by_peft):
        options = LoadingOptions(dtype="float64", gradient_checkpointing=recompute)
        model = change(Model("embedded", options=options))
        # Or they would be tried, in forwards of their own.
        vars(model.capabilities).update(packing_window=math.inf, separate_head=True)
        packing.prepare(model.causal_lm())
        randomize(model)
        found.append(mean_gradients(model, encode(records("unlearn", "train", 6), model.tokenizer)))
        layers = sum(type(module) is Linear for module in model.net.modules())
        assert len(calls) == (1 + recompute) * layers  # none more by peft
    own, other = found
    for name in other:
        scale = float(other[name].abs().max())
        assert scale > 0
        # Llama's norms are float32 in a model of float64 too.
        torch.testing.assert_close(own[name], other[name], rtol=0, atol=1e-6 * scale)


def test_a_model_computes_as_by_peft(calls: list[int]) -> None:
    found = []
    for change in (lambda model: model, by_peft):
        model = change(Model("embedded"))
        with torch.no_grad():
            for parameter in model.parameters().values():
                parameter.add_(0.01)
            ids = torch.arange(40).view(2, 20)
            found.append(model.net(input_ids=ids, labels=ids).loss)
        layers = sum(type(module) is Linear for module in model.net.modules())
        assert len(calls) == layers
    torch.testing.assert_close(*found, rtol=1e-5, atol=0)


def test_a_lora_that_is_put_on_anew_is_fused(toy: Model, calls: list[int]) -> None:
    toy.adapt(Adaptation("lora", rank=3, alpha=3))
    randomize(toy)
    ids = torch.arange(8).view(1, 8)
    toy.net(input_ids=ids)
    layers = [module for module in toy.net.modules() if type(module) is Linear]
    assert len(calls) == len(layers) == 14
    with toy.net.disable_adapter():
        toy.net(input_ids=ids)
    assert len(calls) == 14


def test_a_merged_model_computes_the_same(toy: Model) -> None:
    ids = torch.arange(8).view(1, 8)
    with torch.no_grad():
        before = toy.net(input_ids=ids).logits
        merged = toy.net.merge_and_unload()
        torch.testing.assert_close(merged(input_ids=ids).logits, before, rtol=1e-10, atol=1e-12)
    assert not any(isinstance(module, Linear) for module in merged.modules())
