"""Sequence packing against rows that have a forward of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gradients_of import gradients, near
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    MistralConfig,
    Qwen2Config,
)

from conftest import randomize, records
from knowundo.data.batches import collate
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.localization.noise import noisy_copies
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.base import base_path
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.half import Half
from knowundo.modeling.head import live_head
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.padded import all_hidden_states

Rows = dict[str, list[Encoded]]


def tiny(folder: Path, kind: str) -> str:
    """A random model of another family, with the embedded tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(base_path("embedded"))
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 40, "initializer_range": 0.2,
        "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    config: Any
    if kind == "gpt2":
        config = GPT2Config(n_embd=24, n_layer=2, n_head=2, **shape)
    elif kind == "qwen2":
        config = Qwen2Config(num_key_value_heads=1, **shape)
    elif kind == "mistral":
        config = MistralConfig(num_key_value_heads=1, sliding_window=4, **shape)
    else:
        own = {"hidden_size": 24, "num_hidden_layers": 2, "vocab_size": len(tokenizer)}
        config = AutoConfig.for_model(kind, n_head=2, **own)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "packed"),
    [("qwen2", True), ("mistral", True), ("gpt2", True), ("bloom", False), ("mamba", False)],
)
def test_rows_see_only_themselves(tmp_path: Path, kind: str, packed: bool) -> None:
    """Grouped heads, a sliding window, learned positions; ALiBi and a recurrence cannot be packed.

    Whichever way is taken, each row's states are those that it has alone.
    """
    model = Model(tiny(tmp_path, kind), Adaptation("full"), options=LoadingOptions(dtype="float64"))
    rows = encode(records("unlearn", "train", 5), model.tokenizer)
    assert model.capabilities.packing is packed
    with torch.no_grad():
        together = hidden_states(model, collate(rows, model.pad))
        alone = [
            all_hidden_states(model, b := collate([r], model.pad))[0][b.positions] for r in rows
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_packed_gradients_are_the_padded_ones(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = collate(toy_rows["unlearn"], toy.pad)

    def found() -> dict[str, torch.Tensor]:
        toy.train_only(toy.parameters())
        half = Half(batch, hidden_states(toy, batch), live_head(toy))
        return gradients(toy, half.mean_nll.mean())

    assert toy.capabilities.packing
    packed = found()
    monkeypatch.setitem(vars(toy.capabilities), "packing_window", 0)
    near(packed, found())


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_what_rows_begin_with_alike_is_computed_once(
    toy_base: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Noisy copies, a row that is the beginning of another, and one that is there twice."""
    model = Model(
        toy_base, Adaptation(kind, rank=2, alpha=4), options=LoadingOptions(dtype="float64")
    )
    if kind == "lora":
        randomize(model)
    rows = encode(records("unlearn", "train", 4), model.tokenizer)
    rows += noisy_copies(rows[1:], copies=3, vocabulary=300, seed=0)
    rows += [replace(rows[3], ids=rows[3].ids[:-4], tail=0), rows[2]]
    batch = collate(rows, model.pad)
    beginnings = {row.ids[:end] for row in rows for end in range(1, len(row.ids) + 1)}
    assert len(batch.filled) == len(beginnings) < 0.5 * int(batch.mask.sum())
    seen = list[int]()
    decoder: Any = model.causal_lm().get_decoder()  # type: ignore[operator]
    decoder.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))

    def found() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.train_only(model.parameters())
        half = Half(batch, hidden_states(model, batch), live_head(model))
        return half.states.detach(), gradients(model, half.mean_nll.mean())

    assert model.capabilities.packing
    states, packed = found()
    assert seen[-1] == len(beginnings)
    monkeypatch.setitem(vars(model.capabilities), "packing_window", 0)
    plain, padded = found()
    torch.testing.assert_close(states, plain, rtol=1e-5, atol=1e-6)
    near(packed, padded)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounding_is_no_reason_to_pad(dtype: str) -> None:
    model = Model("embedded", options=LoadingOptions(dtype=dtype))
    assert model.capabilities.packing
    rows = encode(records("unlearn", "train", 5), model.tokenizer)
    batch = collate(rows, model.pad)
    with torch.no_grad():
        packed = hidden_states(model, batch).float()
        padded = all_hidden_states(model, batch).flatten(0, 1)[batch.positions].float()
    assert float((packed - padded).norm() / padded.norm()) < (1e-5 if dtype == "float32" else 0.03)


def test_eager_attention_is_left_alone(toy_base: str, toy_rows: Rows) -> None:
    model = Model(toy_base, options=LoadingOptions(dtype="float64", attention="eager"))
    assert not model.capabilities.packing
    assert model.causal_lm().config._attn_implementation == "eager"  # type: ignore[union-attr]


def test_attention_that_is_not_told_is_found_out(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that loses the packing on the way would let rows see each other."""
    decoder = toy.causal_lm().get_decoder()  # type: ignore[operator]
    forward = decoder.forward

    def lost(*, packing: Any = None, **rest: Any) -> Any:
        return forward(**rest)

    monkeypatch.setattr(decoder, "forward", lost)
    assert not toy.capabilities.packing
