"""How a base is held: LoRA dropout, precision, 4 bits, attention, checkpointing, optimizers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch

from conftest import randomize, records
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.errors import BadInput
from knowundo.localization.gradients import mean_gradients
from knowundo.memorization import MemorizeSettings, memorize
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.forward import Forward, answer_logits, hidden_states
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.weights import describe, size
from knowundo.training.optimizer import make_optimizer
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

LORA = Adaptation("lora", rank=2, alpha=4)


def rows(model: Model) -> list[Encoded]:
    return encode(records("unlearn", "train", 6), model.tokenizer)


def finetune(model: Model, **rest: Any) -> None:
    settings: dict[str, Any] = {"epochs": 2, "lr": 1e-2, "batch_size": 3, "accumulation": 1}
    settings |= {"weight_decay": 0.0, "known": None, "seed": 0}
    memorize(model, rows(model), settings=MemorizeSettings(**settings | rest))


def frozen(model: Model) -> dict[str, torch.Tensor]:
    named = model.net.named_parameters()
    return {n: p.detach().clone() for n, p in named if "lora_" not in n}


def changed(model: Model, before: dict[str, torch.Tensor]) -> list[str]:
    after = frozen(model)
    return [name for name in before if not torch.equal(before[name], after[name])]


def saved_bytes(run: Callable[[], torch.Tensor]) -> int:
    """Bytes that a graph holds, each storage once."""
    held: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    del result
    return sum(storage.nbytes() for storage in held.values())


def test_dropout_acts_in_training_only(toy_base: str) -> None:
    model = Model(
        toy_base, Adaptation("lora", 2, 4, dropout=0.5), options=LoadingOptions(dtype="float64")
    )
    randomize(model)
    encoded = rows(model)

    def logits() -> torch.Tensor:
        return torch.cat([row for _, row in answer_logits(Forward(model), encoded)])

    assert torch.equal(logits(), logits())
    model.net.train()
    assert not torch.equal(logits(), logits())


def test_dropout_changes_nothing_by_default(toy_base: str) -> None:
    model = Model(toy_base, LORA)
    assert model.net.peft_config["default"].lora_dropout == 0.0
    assert not any(isinstance(m, torch.nn.Dropout) for m in model.net.modules())


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("training", [True, False])
def test_checkpointing_leaves_gradients_as_they_are(
    toy_base: str, kind: str, training: bool
) -> None:
    found = []
    for recompute in (False, True):
        model = Model(
            toy_base,
            Adaptation(kind, 2, 4),
            options=LoadingOptions(dtype="float64", gradient_checkpointing=recompute),
        )
        if kind == "lora":
            randomize(model)
        model.net.train(training)
        found.append(mean_gradients(model, rows(model)))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert all(gradient.abs().max() > 0 for gradient in found[1].values())


@pytest.mark.parametrize("training", [True, False])
def test_checkpointing_holds_less(toy_base: str, training: bool) -> None:
    from knowundo.data.batches import collate

    held = []
    for recompute in (False, True):
        model = Model(toy_base, LORA, options=LoadingOptions(gradient_checkpointing=recompute))
        model.net.train(training)
        model.train_only(model.parameters())
        batch = collate(rows(model), model.pad)
        held.append(saved_bytes(lambda m=model, b=batch: hidden_states(m, b)))  # type: ignore[misc]
    assert held[1] < held[0] / 4


def test_checkpointing_trains_the_same(toy_base: str) -> None:
    states = []
    for recompute in (False, True):
        model = Model(toy_base, LORA, options=LoadingOptions(gradient_checkpointing=recompute))
        before = frozen(model)
        finetune(model)
        assert changed(model, before) == []
        states.append(model.state())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_lora_beside_bfloat16_is_float32_and_learns(toy_base: str) -> None:
    model = Model(toy_base, LORA, options=LoadingOptions(dtype="bfloat16"))
    assert {p.dtype for p in model.parameters().values()} == {torch.float32}
    assert {p.dtype for p in frozen(model).values()} == {torch.bfloat16}
    before, fresh = frozen(model), model.state()
    finetune(model)
    assert changed(model, before) == []
    assert any(not torch.equal(fresh[name], value) for name, value in model.state().items())


def test_reference_works_beside_bfloat16(toy_base: str) -> None:
    model = Model(toy_base, LORA, options=LoadingOptions(dtype="bfloat16"))
    kept = {"retention": encode(records("retention", "train", 6), model.tokenizer)}
    start = Start(model, rows(model), kept, seed=0)
    done = unlearn(
        start,
        UnlearnSettings(
            method="ascent_plus_kl_divergence", lr=1e-3, epochs=2, batch_size=3, accumulation=1
        ),
    )  # the first step warms up: its rate is 0
    assert done.curve[0]["parts"]["retention"] == pytest.approx(0, abs=1e-6)
    assert done.curve[-1]["parts"]["retention"] > 0


def test_attention_implementations_agree(toy_base: str) -> None:
    logits = []
    for name in ("eager", "sdpa"):
        model = Model(toy_base, LORA, options=LoadingOptions(dtype="float64", attention=name))
        assert model.causal_lm().config._attn_implementation == name  # type: ignore[union-attr]
        logits.append(torch.cat([row for _, row in answer_logits(Forward(model), rows(model))]))
    # The eager one takes its softmax in float32.
    torch.testing.assert_close(*logits, rtol=0, atol=1e-4)


def test_flash_attention_says_what_it_needs(toy_base: str) -> None:
    with pytest.raises(BadInput, match="needs a GPU and the package flash-attn"):
        Model(toy_base, LORA, options=LoadingOptions(attention="flash_attention_2"))


@pytest.mark.parametrize(
    ("adaptation", "options", "said"),
    [
        (Adaptation("full"), {}, "set model.adaptation to lora"),
        (LORA, {"dtype": "float64"}, "set model.dtype"),
        (LORA, {"quantization": "int3"}, "say nf4"),
    ],
)
def test_four_bits_that_cannot_be(
    toy_base: str, adaptation: Adaptation, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said) as error:
        Model(toy_base, adaptation, options=LoadingOptions(**{"quantization": "nf4"} | options))
    assert "\n" not in str(error.value)


def test_without_bitsandbytes_the_fix_is_named(
    toy_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("knowundo.modeling.checks.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install 'knowundo\[gpu\]'"):
        Model(toy_base, LORA, options=LoadingOptions(quantization="nf4"))
    on_gpu = [torch.nn.Parameter(torch.empty(3, device="meta"))]
    with pytest.raises(BadInput, match=r"pip install 'knowundo\[gpu\]'"):
        make_optimizer("paged_adamw_32bit", on_gpu, lr=1e-3, weight_decay=0.0)


class TestFourBits:
    """bitsandbytes computes on a CPU too, so all but the speed is tested here."""

    @pytest.fixture
    def packed(self, toy_base: str) -> Model:
        pytest.importorskip("bitsandbytes")
        model = Model(toy_base, LORA, options=LoadingOptions(quantization="nf4"))
        randomize(model)
        return model

    @pytest.fixture
    def unpacked(self, toy_base: str, packed: Model) -> Model:
        """A model of floats that holds the weights that the 4 bits stand for."""
        from bitsandbytes.functional import dequantize_4bit

        model = Model(toy_base, LORA)
        randomize(model)
        own = dict(model.net.named_parameters())
        with torch.no_grad():
            for name, parameter in packed.net.named_parameters():
                state = getattr(parameter, "quant_state", None)
                if state is not None:
                    own[name].copy_(dequantize_4bit(parameter.data, state))
        return model

    def test_linear_layers_take_4_bits(self, packed: Model, toy_base: str) -> None:
        floats = describe(Model(toy_base, LORA))
        assert describe(packed) == floats
        named = packed.net.named_parameters()
        held = {n: p for n, p in named if hasattr(p, "quant_state")}
        assert len(held) == 14  # seven in each of two layers; not the head
        assert all(p.numel() == size(p) / 2 and p.element_size() == 1 for p in held.values())

    def test_logits_are_those_of_the_unpacked_weights(self, packed: Model, unpacked: Model) -> None:
        encoded = rows(packed)
        one, other = (
            torch.cat([logits for _, logits in answer_logits(Forward(model), encoded)])
            for model in (packed, unpacked)
        )
        torch.testing.assert_close(one, other)

    def test_gradients_are_right_after_a_forward_without(
        self, packed: Model, unpacked: Model
    ) -> None:
        encoded = rows(packed)
        # Where bitsandbytes would pack for its CPU kernel.
        list(answer_logits(Forward(packed), encoded))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a kernel without a backward only warns
            one = mean_gradients(packed, encoded)
        other = mean_gradients(unpacked, encoded)
        for name in one:
            torch.testing.assert_close(one[name], other[name])

    def test_training_changes_the_lora_only(self, packed: Model) -> None:
        before, fresh = frozen(packed), packed.state()
        finetune(packed)
        assert changed(packed, before) == []
        assert all(not torch.equal(fresh[name], value) for name, value in packed.state().items())

    def test_checkpointing_leaves_gradients_as_they_are(self, packed: Model, toy_base: str) -> None:
        model = Model(
            toy_base, LORA, options=LoadingOptions(quantization="nf4", gradient_checkpointing=True)
        )
        randomize(model)
        one = mean_gradients(packed, rows(packed))
        other = mean_gradients(model, rows(model))
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_beside_bfloat16_a_reference_and_a_step_work(self, toy_base: str) -> None:
        pytest.importorskip("bitsandbytes")
        model = Model(toy_base, LORA, options=LoadingOptions(dtype="bfloat16", quantization="nf4"))
        kept = {"retention": encode(records("retention", "train", 6), model.tokenizer)}
        start = Start(model, rows(model), kept, seed=0)
        settings = {"epochs": 2, "batch_size": 3, "accumulation": 1}
        done = unlearn(
            start, UnlearnSettings(method="ascent_plus_kl_divergence", lr=1e-3, **settings)
        )  # type: ignore[arg-type]
        assert done.curve[-1]["parts"]["retention"] > 0

    def test_a_model_of_4_bits_can_be_scored_without_a_lora(self, toy_base: str) -> None:
        pytest.importorskip("bitsandbytes")
        model = Model(
            toy_base,
            Adaptation("full"),
            options=LoadingOptions(quantization="nf4", scored_only=True),
        )
        assert len(list(answer_logits(Forward(model), rows(model)))) == 6


def test_a_paged_optimizer_needs_a_gpu(toy_base: str) -> None:
    with pytest.raises(BadInput, match="on a CPU say adamw"):
        finetune(Model(toy_base, LORA), optimizer="paged_adamw_32bit")


def test_an_unknown_optimizer_is_refused(toy_base: str) -> None:
    with pytest.raises(BadInput, match="say adamw or paged_adamw_32bit"):
        finetune(Model(toy_base, LORA), optimizer="sgd")


def test_the_paged_optimizer_is_bitsandbytes_own_and_computes_as_torchs() -> None:
    """Paging is tested nowhere without a GPU; the arithmetic is, on a CPU."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    on_gpu = [torch.nn.Parameter(torch.empty(3, device="meta"))]
    made = make_optimizer("paged_adamw_32bit", on_gpu, lr=1e-3, weight_decay=0.1)
    assert type(made) is bitsandbytes.optim.PagedAdamW32bit
    generator = torch.Generator().manual_seed(0)
    one = torch.nn.Parameter(torch.randn(5000, generator=generator))
    other = deepcopy(one)
    optimizers = (
        bitsandbytes.optim.PagedAdamW32bit([one], lr=1e-3, weight_decay=0.1),
        torch.optim.AdamW([other], lr=1e-3, weight_decay=0.1),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Paged optimizers are not supported on CPU")
        for _ in range(5):
            one.grad = torch.randn(5000, generator=generator)
            other.grad = one.grad.clone()
            for optimizer in optimizers:
                optimizer.step()
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
