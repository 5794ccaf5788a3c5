"""A loaded model is taken without being changed, and its adapter becomes a folder of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from knowundo.erasure.loaded import kept_adapter, loaded_model
from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation, adaptation_of
from knowundo.recipes.reading import load_recipe


@pytest.fixture
def tokenizer(toy_base: str) -> Any:
    return AutoTokenizer.from_pretrained(toy_base)


@pytest.fixture
def net(toy_base: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(toy_base, dtype=torch.float32)


def wrapped(net: Any, seed: int = 1) -> PeftModel:
    """With an adapter that has an effect."""
    torch.manual_seed(seed)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    return get_peft_model(net, config)  # type: ignore[return-value]


def pointers(net: Any) -> set[int]:
    return {parameter.data_ptr() for parameter in net.parameters()}


@pytest.mark.parametrize(
    ("changed", "copy", "shares"), [(False, True, True), (True, True, False), (True, False, True)]
)
def test_weights_are_copied_only_where_they_change(
    net: Any, tokenizer: Any, changed: bool, copy: bool, shares: bool
) -> None:
    loaded = loaded_model(net, tokenizer, changed=changed, copy=copy)
    recipe, _ = load_recipe("demo", [])
    opened = loaded.base.open(recipe, Adaptation("full" if changed else "lora", 2, 4))
    names = "lora_" if not changed else "none"
    base = {p.data_ptr() for n, p in opened.net.named_parameters() if names not in n}
    assert (base == pointers(net)) == shares
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert not any("lora" in name for name, _ in net.named_modules())


def test_the_base_of_a_peft_model_has_no_adapter_and_the_model_keeps_it(
    net: Any, tokenizer: Any, tmp_path: Path
) -> None:
    ids = torch.arange(5, 15)[None]
    plain = net(input_ids=ids).logits.detach().clone()
    model = wrapped(net)
    before = model(input_ids=ids).logits.detach().clone()
    assert not before.allclose(plain, atol=1e-3)
    loaded = loaded_model(model, tokenizer, changed=False, copy=True)
    assert loaded.net(input_ids=ids).logits.equal(plain)
    with kept_adapter(model, tmp_path) as folder:
        assert adaptation_of(folder).rank == 2
        back = loaded.with_adapter(folder)
        assert back(input_ids=ids).logits.allclose(before, atol=1e-6)
        assert not pointers(back) & pointers(net)
        (tmp_path / "lists").mkdir()
    assert model(input_ids=ids).logits.equal(before)


def test_an_adapter_is_written_once_and_only_beside_lists(
    net: Any, toy_base: str, tmp_path: Path
) -> None:
    model = wrapped(net)
    with pytest.raises(BadInput, match="stop"), kept_adapter(model, tmp_path) as folder:
        raise BadInput("stop")
    assert not folder.exists()
    with kept_adapter(model, tmp_path):
        (tmp_path / "lists").mkdir()
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert len(before) >= 3
    with kept_adapter(model, tmp_path):
        pass
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    other = wrapped(AutoModelForCausalLM.from_pretrained(toy_base), seed=2)
    with (
        pytest.raises(BadInput, match="is not the adapter of this model; name another"),
        kept_adapter(other, tmp_path),
    ):
        pass


def test_states_of_a_wrapper_that_cannot_be_taken_are_named(net: Any, tokenizer: Any) -> None:
    with pytest.raises(BadInput, match="tokenizer: a loaded model needs its own"):
        loaded_model(net, None, changed=False, copy=True)
    model = wrapped(net)
    model.merge_adapter()
    with pytest.raises(BadInput, match="merged into the base; call unmerge_adapter"):
        loaded_model(model, tokenizer, changed=False, copy=True)
    model.unmerge_adapter()
    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"]))
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(BadInput, match="one adapter must be active, and these are: default, secon"):
        loaded_model(model, tokenizer, changed=False, copy=True)
