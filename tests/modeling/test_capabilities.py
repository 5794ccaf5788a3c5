"""Logits, adapters, weights and answers against plain transformers and peft, by architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import architectures
from architectures import ROWS, adapter, all_weights, difference, own_logits, plain_logits, rows
from knowundo.data.batches import collate
from knowundo.errors import BadInput
from knowundo.modeling import head
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.forward import hidden_states
from knowundo.modeling.model import Model
from knowundo.modeling.multi_adapter import batched_adapters, can_batch_adapters
from knowundo.modeling.positions import scaling, unscaled
from knowundo.modeling.variant import ModelVariant
from knowundo.scoring.generation import continue_prompts

# Scaled logits, soft-capping, renamed heads, fused experts, masks by keyword, learned positions, a
# decoder below the model's first part, multipliers, no attention, and a router that is a layer.
TEN = (
    "llama", "gemma2", "gpt_neox", "mixtral", "doge", "opt", "hyperclovax", "falcon_h1", "mamba",
    "phimoe",
)  # fmt: skip
Place = Callable[[str], Path]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Folders of built models, each made once."""
    made: dict[str, Path] = {}

    def place(name: str) -> Path:
        if name not in made:
            made[name] = architectures.folder(name, tmp_path_factory.mktemp(name))
        return made[name]

    return place


@pytest.mark.parametrize("name", TEN)
def test_all_weights_are_those_of_plain_transformers(
    name: str, base: Place, tmp_path: Path
) -> None:
    """Logits at first, and after all weights were moved, written and read again."""
    model = all_weights(name, base(name), tmp_path)
    assert architectures.same_answers(model)


@pytest.mark.parametrize("name", [n for n in TEN if n != "falcon_h1"])
def test_a_lora_is_that_of_plain_peft(name: str, base: Place, tmp_path: Path) -> None:
    adapter(name, base(name), tmp_path, "all-linear")


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("llama", ["q_proj", "lm_head"]),
        ("gemma2", ["v_proj", "lm_head"]),
        ("hyperclovax", ["lm_head"]),
        ("gpt_neox", ["query_key_value", "lm_head"]),
    ],
)
def test_adapters_on_the_head_are_those_of_plain_peft(
    name: str, targets: list[str], base: Place, tmp_path: Path
) -> None:
    """By the live head, by one that was frozen and is not moved by training, and one by one."""
    model = adapter(name, base(name), tmp_path, targets)
    plain = next(iter(own_logits(model, ROWS)))
    frozen = head.frozen_head(model)
    with torch.no_grad():
        states = hidden_states(model, collate(ROWS, model.pad))
        for parameter in head.live_head(model).module.parameters():  # type: ignore[union-attr]
            parameter.add_(1.0)
    assert torch.equal(frozen(states), plain)
    assert not torch.allclose(head.live_head(model)(states), plain)
    one = ModelVariant("one", "given", tmp_path)
    assert not can_batch_adapters(model, [one, ModelVariant("base", "base")])


def test_a_head_that_cannot_be_taken_apart_is_never_wrong(
    base: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits that the model changes by what is not in its hidden states: the whole model runs."""
    model = Model(str(base("llama")), Adaptation("full"))
    module = model.causal_lm()
    plain = type(module).forward

    def by_length(self: torch.nn.Module, input_ids: torch.Tensor, **rest: object) -> object:
        output = plain(self, input_ids=input_ids, **rest)
        output.logits = output.logits * (1 + input_ids.float().mean(-1)[:, None, None])
        return output

    monkeypatch.setattr(type(module), "forward", by_length)
    batch = collate(rows(12, 12), model.pad)
    with torch.no_grad():
        found = head.live_head(model)(hidden_states(model, batch))
        expected = plain_logits(model.net, batch.encoded)
    assert not model.capabilities.separate_head
    assert difference(found, expected) < 1e-5
    assert any("not those of the final hidden states" in note for note in model.notes.texts)


ROPE = {"rope_theta": 10000.0, "original_max_position_embeddings": 16}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}


@pytest.mark.parametrize(
    ("name", "more", "groups"),
    [
        ("phi3", {"original_max_position_embeddings": 16, "rope_parameters": ROPE | LONG}, 2),
        ("llama", {"rope_parameters": ROPE | {"rope_type": "dynamic", "factor": 2.0}}, 3),
    ],
    ids=["longrope", "dynamic"],
)
def test_a_row_is_that_of_the_row_alone(
    name: str, more: dict[str, object], groups: int, tmp_path: Path
) -> None:
    """Beside longer rows, and after them, in a batch and in generation."""
    if "dynamic" in str(more):
        more = more | {"max_position_embeddings": 16}
    net = architectures.build(name, **more)
    net.save_pretrained(tmp_path)
    for file in Path(architectures.base_path("embedded")).glob("tok*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model, encoded = Model(str(tmp_path), Adaptation("full")), rows(9, 30, 14, 22)
    assert unscaled(model) == 16
    assert len({scaling(model, len(row.ids)) for row in encoded}) == groups
    alone = []
    for row in encoded:
        fresh = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        alone.append(plain_logits(fresh, [row]))
    for _ in range(2):  # what was seen before plays no part
        for found in own_logits(model, encoded):
            assert difference(found, torch.cat(alone)) < 1e-5
    together = continue_prompts(model, [row.ids for row in encoded], tokens=4, stops=[200])
    for row, ids in zip(encoded, together, strict=True):
        fresh = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        new = fresh.generate(
            torch.tensor([row.ids]),
            attention_mask=torch.ones(1, len(row.ids)),
            max_new_tokens=4,
            do_sample=False,
            eos_token_id=200,
            pad_token_id=0,
        )
        assert new[0, len(row.ids) :].tolist() == ids.tolist()


@pytest.mark.parametrize("name", ["phimoe", "qwen2_moe", "mistral"])
def test_windows_beyond_the_rows_of_the_trial_are_kept(name: str, tmp_path: Path) -> None:
    """Two models put them into the mask alone, which packing does not read; a third does not."""
    more = {"use_sliding_window": True, "max_window_layers": 1} if name == "qwen2_moe" else {}
    net = architectures.build(name, sliding_window=16, **more)
    net.save_pretrained(tmp_path)
    for file in Path(architectures.base_path("embedded")).glob("tok*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model, encoded = Model(str(tmp_path), Adaptation("full")), rows(40, 9, 35)
    for found in own_logits(model, encoded):
        assert difference(found, plain_logits(net, encoded)) < 1e-5
    assert model.capabilities.packing_window == (float("inf") if name == "mistral" else 16)


def test_what_packs_alone_packs_beside_other_adapters(base: Place, tmp_path: Path) -> None:
    """Asked for the first time by the batched forward, and within it."""
    made = []
    for number in (0, 1):
        (tmp_path / str(number)).mkdir()
        adapter("llama", base("llama"), tmp_path / str(number), "all-linear")
        made.append(ModelVariant(str(number), "given", tmp_path / str(number)))
    model = Model(str(base("llama")), Adaptation("lora", rank=2, alpha=4))
    assert can_batch_adapters(model, made)
    assert vars(model.capabilities).pop("packing_window") > 0
    with batched_adapters(model, made):
        assert model.capabilities.packing


def test_rows_that_padding_changes_share_no_batch(base: Place) -> None:
    """An RWKV reads padding as text, on either side."""
    model = Model(str(base("rwkv")), Adaptation("full"))
    encoded = rows(9, 14, 9, 20)
    alone = plain_logits(model.net, encoded)
    for found in own_logits(model, encoded):
        assert difference(found, alone) < 1e-5
    assert not model.capabilities.left_padding
    assert architectures.same_answers(model)


def test_what_cannot_generate_says_so(base: Place) -> None:
    model = Model(str(base("llama")), Adaptation("full"))

    def broken(*_: object, **__: object) -> None:
        raise ValueError("no cache for this layer")

    model.net.generate = broken
    with pytest.raises(BadInput, match=r"generate fails on it \(no cache for this layer\)"):
        continue_prompts(model, [(3, 4)], tokens=2, stops=[1])


@pytest.mark.slow
def test_the_page_tells_what_every_architecture_does() -> None:
    """docs/architectures.md is what is found now; only these are other than they should be."""
    found = [architectures.inspect_one(name) for name in architectures.names()]
    page = Path(__file__).parents[2] / "docs" / "architectures.md"
    assert architectures.table(found) == page.read_text(encoding="utf-8")
