"""Hidden states after a layer, against `output_hidden_states` of plain transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from architectures import build
from conftest import naive_ce, randomize
from knowundo.data.batches import PairedBatch, collate
from knowundo.data.encoded import Encoded
from knowundo.data.records import Record
from knowundo.errors import BadInput, KnowUndoError
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.fast.microbatches import micro_batches
from knowundo.modeling.fast.prefix_cache import layers_of, make_prefix_cache
from knowundo.modeling.forward import Forward
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.reference import Reference
from knowundo.modeling.step import Step

Rows = dict[str, list[Encoded]]


@pytest.fixture(params=["llama", "gpt2"])
def deep(request: pytest.FixtureRequest, tmp_path: Path, toy: Model) -> Model:
    """A model of four layers in float64, with a LoRA."""
    size: dict[str, Any] = {"num_hidden_layers": 4, "vocab_size": len(toy.tokenizer)}
    if request.param == "gpt2":
        size |= {"n_layer": 4, **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)}
    build(request.param, **size).save_pretrained(tmp_path)
    toy.tokenizer.save_pretrained(tmp_path)
    options = LoadingOptions(dtype="float64")
    model = Model(str(tmp_path), Adaptation("lora", rank=2), options=options)
    randomize(model)
    return model


def plain(model: Model, row: Encoded, layer: int) -> torch.Tensor:
    """One unpadded row through the whole model, [answer tokens, hidden]."""
    ids = torch.tensor([row.ids])
    states = model.net(input_ids=ids, output_hidden_states=True).hidden_states
    found: torch.Tensor = states[layer + 1][0, row.answer_from - 1 : -1]
    return found


def step_of(
    model: Model, rows: Rows, forward: Forward | None = None, *, held: Any = None, read: Any = ()
) -> Step:
    batch = PairedBatch(*(collate(rows[scope], model.pad) for scope in ("unlearn", "retention")))
    return Step(forward or Forward(model), batch, reference=lambda: held, read=read)


def upper(model: Model) -> list[str]:
    """Parameters of the two upper layers."""
    return [name for name in model.parameters() if any(f".{n}." in name for n in (2, 3))]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_states_are_those_of_transformers(
    deep: Model, toy_rows: Rows, layer: int, packed: bool
) -> None:
    if not packed:
        deep.capabilities.__dict__["packing_window"] = 0  # as if it were tried and failed
    assert deep.capabilities.packing is packed
    rows = toy_rows["unlearn"]
    found = step_of(deep, toy_rows).unlearn.layer(layer)
    wanted = torch.cat([plain(deep, row, layer) for row in rows])
    assert found.shape == wanted.shape == (sum(r.answer_length for r in rows), wanted.shape[1])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)  # norms are in float32


def test_the_last_layer_is_before_the_final_norm(deep: Model, toy_rows: Rows) -> None:
    half = step_of(deep, toy_rows).unlearn
    decoder: Any = deep.causal_lm().get_decoder()  # type: ignore[operator]
    norm = decoder.ln_f if hasattr(decoder, "ln_f") else decoder.norm
    torch.testing.assert_close(norm(half.layer(3)), half.states, rtol=1e-5, atol=1e-6)


def test_layers_above_do_not_run(deep: Model, toy_rows: Rows) -> None:
    ran = list[int]()
    for number, layer in enumerate(layers_of(deep)):
        layer.register_forward_hook(lambda *_, n=number: ran.append(n))
    assert deep.capabilities.packing
    ran.clear()
    step_of(deep, toy_rows).unlearn.layer(1)
    assert ran == [0, 1]
    assert not any(len(layer._forward_hooks) > 1 for layer in layers_of(deep))


@pytest.mark.parametrize("layer", [1, 2])
def test_the_prefix_cache_is_off_below_it(deep: Model, toy_rows: Rows, layer: int) -> None:
    region = upper(deep)
    deep.train_only(region)
    cache = make_prefix_cache(deep, region, [toy_rows["unlearn"]])
    assert deep.capabilities.packing
    assert cache is not None
    assert cache.first == 2
    half = step_of(deep, toy_rows, Forward(deep, cache)).unlearn
    if layer == 1:
        with pytest.raises(BadInput, match="layer 1, which do not depend on what is trained"):
            half.layer(1)
        with torch.no_grad():
            found = step_of(deep, toy_rows, Forward(deep, cache)).unlearn.layer(1)
    else:
        found = half.layer(layer)
    assert bool(cache.states) == (layer == 2)
    wanted = torch.cat([plain(deep, row, layer) for row in toy_rows["unlearn"]])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_gradients_of_micro_batches_add_up(deep: Model, toy_rows: Rows) -> None:
    chosen = deep.train_only(n for n in deep.parameters() if ".0." in n or ".1." in n)
    batch = PairedBatch(*(collate(toy_rows[s], deep.pad) for s in ("unlearn", "retention")))

    def gradients(part: PairedBatch) -> list[torch.Tensor]:
        half = Step(Forward(deep), part, reference=lambda: None).unlearn  # type: ignore[arg-type, return-value]
        value = half.mean(half.per_row(half.layer(1).square().mean(-1)))
        return list(torch.autograd.grad(value, chosen))

    parts = micro_batches(batch, tokens=40)
    assert len(parts) > 1
    whole = gradients(batch)
    sums = [torch.stack(one).sum(0) for one in zip(*map(gradients, parts), strict=True)]
    assert all(one.abs().sum() > 0 for one in whole)
    for one, other in zip(whole, sums, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_the_reference_holds_each_layer(deep: Model, toy_rows: Rows) -> None:
    """By row and layer, of all rows in the first step; nothing of what is not read."""
    held = Reference.of(deep, toy_rows["unlearn"] + toy_rows["retention"])
    wanted = torch.cat([plain(deep, row, 1) for row in toy_rows["unlearn"]]).detach()
    few = {scope: rows[:2] for scope, rows in toy_rows.items()}
    first = step_of(deep, few, held=held)
    assert not first.reference.unlearn.layer(1).requires_grad
    assert set(held.layers) == {1}
    assert set(held.layers[1]) == set(toy_rows["unlearn"])
    assert not held.states
    randomize(deep, seed=9)
    later = step_of(deep, toy_rows, held=held, read={"unlearn.layer"})
    torch.testing.assert_close(later.reference.unlearn.layer(1), wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(KnowUndoError, match="must read it in its first step"):
        later.reference.unlearn.layer(2)
    with pytest.raises(KnowUndoError, match="must read it in its first step"):
        _ = later.reference.unlearn.mean_nll
    with pytest.raises(KnowUndoError, match="must read it in its first step"):
        _ = later.reference.retention


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_that_is_not_there_is_refused(deep: Model, toy_rows: Rows, layer: int) -> None:
    with pytest.raises(BadInput, match=f"no layer {layer}; it has the layers 0 to 3"):
        step_of(deep, toy_rows).unlearn.layer(layer)


def test_states_read_without_gradients_first_have_them_later(toy: Model, toy_rows: Rows) -> None:
    toy.train_only(toy.parameters())
    half = step_of(toy, toy_rows).unlearn
    with torch.no_grad():
        _ = half.logits, half.layer(0)
    assert half.states.requires_grad
    assert half.layer(0).requires_grad
    torch.testing.assert_close(
        half.mean_nll, torch.stack([naive_ce(toy, row) for row in toy_rows["unlearn"]])
    )


def test_rows_of_one_token_answers(deep: Model) -> None:
    record = Record(id="a", question="", answer="", scope="unlearn", split="train", kind="text")
    row = Encoded(record, (5, 6, 7), 2, (False,) * 3)
    found = Forward(deep).layer_states(collate([row], deep.pad), 2)
    torch.testing.assert_close(found, plain(deep, row, 2), rtol=1e-5, atol=1e-6)
