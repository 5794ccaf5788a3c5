"""Localizers that intervene on weights or activations, against runs of the whole model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from knowundo.errors import BadInput
from knowundo.localization.patching import subject_tokens, traced
from knowundo.localization.search import LocalizeSettings, localize
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from localization.localizers.conftest import Memorized


def test_reversion_costs_what_a_module_of_the_base_costs(memorized: Memorized) -> None:
    model, rows, now = memorized.model, memorized.rows, memorized.weights()
    now = {name: value.clone() for name, value in now.items()}
    scopes = rows["unlearn"], rows["retention"]
    before, costs = [memorized.loss(scope) for scope in scopes], {}
    for name in now:
        module = name.split(".lora_")[0]
        model.overwrite({n: memorized.base[n] for n in now if n.startswith(f"{module}.lora_")})
        after = [memorized.loss(scope) for scope in scopes]
        costs[name] = [max(b - a, 0) for a, b in zip(before, after, strict=True)]
        model.overwrite(now)
    # Each module was counted once for A and once for B.
    sums = [sum(cost[n] for cost in costs.values()) / 2 for n in (0, 1)]
    expected = {name: cost[0] / sums[0] - cost[1] / sums[1] for name, cost in costs.items()}
    found = memorized.scores("reversion")
    assert {n: float(s) for n, s in found.items()} == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert len(set(expected.values())) > 4
    assert all(torch.equal(value, model.parameters()[name]) for name, value in now.items())


def test_reversion_needs_a_base_that_differs(toy_base: str, memorized: Memorized) -> None:
    model = Model(toy_base, Adaptation("lora", rank=2), options=LoadingOptions(dtype="float64"))
    settings = LocalizeSettings({"reversion": {}}, copies=1, batch_size=8, draws=0, seed=0)
    rows = memorized.rows
    with pytest.raises(BadInput, match=r"localize\.reversion: needs the weights before"):
        localize(model, rows["unlearn"], rows["retention"], settings)


def test_traced_losses_are_those_of_patched_runs(memorized: Memorized) -> None:
    """One sequence at a time, with the clean states of a run of their own."""
    model, row = memorized.model, memorized.rows["unlearn"][3]
    net: Any = model.net
    places = subject_tokens(model, row)
    found = traced(model, row, 2.0, torch.Generator().manual_seed(4))
    embed = model.causal_lm().get_input_embeddings()
    shape = len(places), embed.weight.shape[1]
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(4)).to(embed.weight)
    ids = torch.tensor([row.ids])
    with torch.no_grad():
        clean = net(input_ids=ids, output_hidden_states=True)
        states = embed(ids).clone()
        states[:, places.start : places.stop] += 2.0 * embed.weight.std() * noise
        last, layers = places.stop - 1, model.causal_lm().model.layers

        def loss(logits: torch.Tensor) -> float:
            values = logits[0, row.answer_from - 1 : -1].log_softmax(-1)
            labels = torch.tensor(row.ids[row.answer_from :])
            return float(-values[torch.arange(len(labels)), labels].mean())

        expected = [loss(clean.logits), loss(net(inputs_embeds=states).logits)]
        # hidden_states of the last layer are after the norm, so its own output is caught.
        caught = []
        hook = layers[-1].register_forward_hook(lambda _, __, out: caught.append(out))
        net(input_ids=ids)
        hook.remove()
        for number, layer in enumerate(layers):
            whole = caught[0] if number == len(layers) - 1 else clean.hidden_states[number + 1]
            whole = whole if isinstance(whole, torch.Tensor) else whole[0]

            def put(_: Any, __: Any, out: Any, whole: torch.Tensor = whole) -> None:
                (out if isinstance(out, torch.Tensor) else out[0])[0, last] = whole[0, last]

            hook = layer.register_forward_hook(put)
            expected.append(loss(net(inputs_embeds=states).logits))
            hook.remove()
    assert found.tolist() == pytest.approx(expected, rel=1e-9)
    assert len({round(value, 12) for value in expected}) == len(expected)


def test_subject_tokens_are_the_last_mention(memorized: Memorized) -> None:
    model = memorized.model
    row = memorized.rows["unlearn"][0]
    assert subject_tokens(model, row) == range(len(row.prompt))  # it is not named there
    from dataclasses import replace

    named = replace(row, record=replace(row.record, subject="number"))
    text = model.tokenizer.decode([row.ids[place] for place in subject_tokens(model, named)])
    assert "number" in text
    assert len(text.strip()) < len("number 0 of")


def test_causal_tracing_is_the_share_restored(memorized: Memorized) -> None:
    effects = []
    for scope in ("unlearn", "retention"):
        generator = torch.Generator().manual_seed(0)
        losses = sum(traced(memorized.model, r, 3.0, generator) for r in memorized.rows[scope])
        effects.append(
            [(losses[1] - one) / max(losses[1] - losses[0], 1e-12) for one in losses[2:]]
        )
    found = memorized.scores("causal_tracing")
    for name, score in found.items():
        layer = int(name.split("layers.")[1].split(".")[0])
        assert float(score) == pytest.approx(float(effects[0][layer] - effects[1][layer]))
    assert len({float(score) for score in found.values()}) == 2
