"""The model in memory: made of a name, or of what its owner loaded."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import records
from knowundo.data.encoding import encode
from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.forward import Forward, answer_logits
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model

LORA = Adaptation("lora", rank=2, alpha=4)


@pytest.mark.parametrize("adaptation", [LORA, Adaptation("full")])
def test_a_loaded_model_is_the_one_of_its_name(toy_base: str, adaptation: Adaptation) -> None:
    net = AutoModelForCausalLM.from_pretrained(toy_base, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(toy_base)
    given = Model.from_loaded(net, tokenizer, adaptation, seed=3)
    named = Model(toy_base, adaptation, seed=3, options=LoadingOptions(dtype="float64"))
    assert given.base == toy_base
    assert given.options.dtype == "float64"
    assert given.notes.texts == ()
    state = given.state()
    assert state
    assert all(torch.equal(value, state[name]) for name, value in named.state().items())
    rows = encode(records("unlearn", "train", 4), tokenizer)
    for (_, one), (_, other) in zip(
        answer_logits(Forward(given), rows), answer_logits(Forward(named), rows), strict=True
    ):
        assert torch.equal(one, other)


def test_a_loaded_model_can_have_a_name_of_its_own(toy_base: str) -> None:
    net = AutoModelForCausalLM.from_pretrained(toy_base)
    tokenizer = AutoTokenizer.from_pretrained(toy_base)
    assert Model.from_loaded(net, tokenizer, LORA, name="mine").base == "mine"


def test_a_model_with_an_adapter_is_refused(toy: Model) -> None:
    with pytest.raises(BadInput, match="has an adapter already; call merge_and_unload"):
        Model.from_loaded(toy.net, toy.tokenizer)
    net = toy.net.get_base_model()
    net._hf_peft_config_loaded = True  # as after transformers' own `add_adapter`
    with pytest.raises(BadInput, match="has an adapter already"):
        Model.from_loaded(net, toy.tokenizer)


def test_nan_in_a_loaded_model_is_refused(toy_base: str) -> None:
    net = AutoModelForCausalLM.from_pretrained(toy_base)
    with torch.no_grad():
        net.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(BadInput, match="holds NaN or infinity"):
        Model.from_loaded(net, AutoTokenizer.from_pretrained(toy_base), LORA)
