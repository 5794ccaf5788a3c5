"""Every kind of LoRA that people have, on two architectures: scored as by plain peft."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from knowundo.errors import BadInput
from knowundo.modeling.adapter_merge import merge_adapter
from knowundo.modeling.adapters import Adaptation, adaptation_of, unmerged_reason
from knowundo.modeling.base import base_path
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.notes import Notes
from knowundo.modeling.variant import ModelVariant

IDS = torch.tensor([[5, 17, 90, 33, 41, 7, 8]])
# Modules of attention, an MLP's output, the embeddings and the head, by architecture.
NAMES = {
    "llama": {"attention": "q_proj", "mlp": "down_proj", "embeddings": "embed_tokens"},
    "gpt2": {"attention": "c_attn", "mlp": "mlp.c_proj", "embeddings": "wte"},
}
# Fields of a LoRA that is trained as it is.
TRAINED: dict[str, dict[str, Any]] = {
    "plain": {},
    "rsLoRA": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "rank_pattern": {"rank_pattern": {"attention": 5}},
    "alpha_pattern": {"alpha_pattern": {"attention": 20}},
    "one layer": {"layers_to_transform": [1]},
    "one module": {"target_modules": ["mlp"]},
    "all-linear": {"target_modules": "all-linear"},
}
# Fields of a LoRA that peft has to merge, and what is said of it.
MERGED: dict[str, tuple[dict[str, Any], str]] = {
    "embeddings saved": ({"modules_to_save": ["embeddings"]}, "modules_to_save"),
    "head saved": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "DoRA, head saved": ({"use_dora": True, "modules_to_save": ["lm_head"]}, "modules_to_save"),
    "tokens": ({"trainable_token_indices": [5, 6, 90]}, "trainable_token_indices"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "init_lora_weights pissa"),
    "OLoRA": ({"init_lora_weights": "olora"}, "init_lora_weights olora"),
}


@pytest.fixture(scope="session")
def gpt2_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random two-layer GPT-2, whose layers are Conv1D, in a folder."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = AutoTokenizer.from_pretrained(base_path("embedded"))
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=128,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, initializer_range=0.2,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=["llama", "gpt2"])
def based(request: pytest.FixtureRequest, toy_base: str) -> tuple[str, str]:
    """A base and its architecture."""
    kind: str = request.param
    return (toy_base if kind == "llama" else request.getfixturevalue("gpt2_base")), kind


def named(fields: Any, kind: str) -> Any:
    """Fields with the names that an architecture gives to its modules."""
    if isinstance(fields, dict):
        return {named(key, kind): named(value, kind) for key, value in fields.items()}
    if isinstance(fields, list):
        return [named(value, kind) for value in fields]
    return NAMES[kind].get(fields, fields) if isinstance(fields, str) else fields


def write(base: str, kind: str, folder: Path, fields: dict[str, Any]) -> Path:
    """An adapter as peft writes it, with random changes of all that it trains."""
    net = AutoModelForCausalLM.from_pretrained(base)
    usual = {"r": 3, "lora_alpha": 6, "target_modules": ["attention", "mlp"]}
    config = LoraConfig(task_type="CAUSAL_LM", **named(usual | fields, kind))
    made = get_peft_model(net, config)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    made.save_pretrained(folder)
    return folder


def logits(net: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = net.eval()(input_ids=IDS).logits
    return found


def by_peft(base: str, folder: Path) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder))


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_trained_as_it_is(name: str, based: tuple[str, str], tmp_path: Path) -> None:
    base, kind = based
    folder = write(base, kind, tmp_path / "adapter", TRAINED[name])
    assert unmerged_reason(folder) is None
    model = Model(base, adaptation_of(folder))
    model.use(ModelVariant("given", "given", folder))
    right = by_peft(base, folder)
    torch.testing.assert_close(logits(model.net), right, rtol=1e-4, atol=1e-4)
    # Training it changes nothing beside its own tensors.
    chosen = model.train_only(model.parameters())
    frozen = {n: p.clone() for n, p in model.net.named_parameters() if not p.requires_grad}
    model.net(input_ids=IDS, labels=IDS).loss.backward()
    torch.optim.SGD(chosen, lr=0.1).step()
    assert all(p.grad is not None for p in chosen)
    assert (logits(model.net) - right).abs().max() > 1e-3
    assert all(torch.equal(p, frozen[n]) for n, p in model.net.named_parameters() if n in frozen)


@pytest.mark.parametrize("name", MERGED)
def test_it_is_merged_by_peft(name: str, based: tuple[str, str], tmp_path: Path) -> None:
    base, kind = based
    if (name, kind) == ("OLoRA", "gpt2"):
        pytest.skip("peft's OLoRA takes no Conv1D")
    fields, reason = MERGED[name]
    folder = write(base, kind, tmp_path / "adapter", fields)
    assert unmerged_reason(folder) == reason
    assert adaptation_of(folder).kind == "full"
    right = by_peft(base, folder)
    options = LoadingOptions(merge=str(folder))
    model = Model(base, Adaptation("lora", 2, 4), options=options)
    torch.testing.assert_close(logits(model.net), right, rtol=1e-4, atol=1e-4)
    assert (right - logits(AutoModelForCausalLM.from_pretrained(base))).abs().max() > 1e-2
    assert model.notes.take() == [f"{folder}: merged into the base by peft ({reason})"]
    # Saved and loaded by transformers, it is the same model: a head that was tied is saved too.
    model.net.merge_and_unload().save_pretrained(tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(again), right, rtol=1e-4, atol=1e-4)


def test_patterns_are_said_to_be_unused_only_if_they_are(toy_base: str) -> None:
    fields = {"rank_pattern": {"up_proj": 5}, "alpha_pattern": {"mlp.gate_proj.weight": 9}}
    fields["target_parameters"] = ["mlp.gate_proj.weight"]  # type: ignore[assignment]
    extra = json.dumps(fields, sort_keys=True)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        model = Model(toy_base, Adaptation("lora", 3, 6, ("q_proj",), extra=extra))
    assert not [one for one in found if "pattern" in str(one.message)]
    said = "rank_pattern 'up_proj' fits no module with a LoRA and has no effect"
    assert model.notes.take() == [f"base '{toy_base}': {said}"]
    layer = model.causal_lm().get_submodule("model.layers.0.mlp.gate_proj")
    assert layer.scaling["default"] == pytest.approx(9 / 3)  # the pattern has an effect


def test_trained_biases_are_merged(gpt2_base: str, tmp_path: Path) -> None:
    folder = write(gpt2_base, "gpt2", tmp_path / "adapter", {"bias": "all"})
    assert unmerged_reason(folder) == "bias all"
    model = Model(gpt2_base, Adaptation("full"), options=LoadingOptions(merge=str(folder)))
    torch.testing.assert_close(logits(model.net), by_peft(gpt2_base, folder), rtol=1e-4, atol=1e-4)


def test_an_extended_vocabulary_is_merged(based: tuple[str, str], tmp_path: Path) -> None:
    base, kind = based
    net = AutoModelForCausalLM.from_pretrained(base)
    rows = len(net.get_input_embeddings().weight) + 3
    net.resize_token_embeddings(rows, mean_resizing=False)
    net.save_pretrained(tmp_path / "resized")
    saved = {"modules_to_save": ["embeddings", "lm_head"]}
    folder = write(str(tmp_path / "resized"), kind, tmp_path / "adapter", saved)
    found = Model(base, Adaptation("full"), options=LoadingOptions(merge=str(folder)))
    right = by_peft(str(tmp_path / "resized"), folder)
    assert right.shape[-1] == rows
    torch.testing.assert_close(logits(found.net), right, rtol=1e-4, atol=1e-4)


def test_an_adapter_of_another_base_is_named(toy_base: str, gpt2_base: str, tmp_path: Path) -> None:
    folder = write(gpt2_base, "gpt2", tmp_path / "adapter", {"modules_to_save": ["lm_head"]})
    with pytest.raises(BadInput, match="peft cannot merge it into base"):
        merge_adapter(AutoModelForCausalLM.from_pretrained(toy_base), folder, toy_base, Notes())


def test_weights_of_4_bits_take_no_adapter(toy_base: str, tmp_path: Path) -> None:
    folder = write(toy_base, "llama", tmp_path / "adapter", {"modules_to_save": ["lm_head"]})
    pytest.importorskip("bitsandbytes")
    options = LoadingOptions(merge=str(folder), quantization="nf4")
    with pytest.raises(BadInput, match=re.escape("leave model.quantization out")):
        Model(toy_base, Adaptation("lora", 2, 4), options=options)
