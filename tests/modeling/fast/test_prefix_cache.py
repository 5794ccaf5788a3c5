"""The prefix cache against all layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gradients_of import near

from conftest import randomize, records
from knowundo.data.batches import collate
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.fast import prefix_cache as lower
from knowundo.modeling.fast.prefix_cache import layers_of, lowest, make_prefix_cache
from knowundo.modeling.forward import Forward, hidden_states
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]

UPPER = "layers.1."


def upper(model: Model) -> list[str]:
    return [name for name in model.parameters() if UPPER in name]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", ["ascent_plus_descent", "ascent_plus_kl_divergence"])
def test_what_lies_below_a_region_is_computed_once(
    toy_base: str, method: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends, passes = [], []
    for held in (2**30, 0):
        monkeypatch.setattr(lower, "MOST_BYTES", held)
        model = Model(
            toy_base,
            Adaptation("lora", rank=2),
            options=LoadingOptions(dtype="float64", gradient_checkpointing=checkpointing),
        )
        randomize(model)
        model.mark_initial()
        rows = {
            s: encode(records(s, "train", count), model.tokenizer)
            for s, count in (("unlearn", 4), ("retention", 6))
        }
        count = 0

        def counted(*_: Any) -> None:
            nonlocal count
            count += 1

        layer: Any = layers_of(model)[0]
        assert model.capabilities.packing
        layer.self_attn.q_proj.register_forward_hook(counted)
        start = Start(model, rows["unlearn"], rows, seed=0)
        unlearn(
            start,
            UnlearnSettings(
                method=method, region=upper(model), lr=1e-3, epochs=6, batch_size=4, accumulation=1
            ),
        )
        assert ("forward" in vars(layer)) is checkpointing  # as it was
        assert not layers_of(model)[1]._forward_pre_hooks
        ends.append({n: v - model.initial.tensors[n] for n, v in model.state().items()})
        passes.append(count)
    near({n: ends[0][n] for n in upper(model)}, {n: ends[1][n] for n in upper(model)})
    assert passes[0] == 2 < 6 < passes[1]  # once a half, against once or more a step


@pytest.mark.parametrize("case", ["lowest layer", "dropout", "embeddings", "too much", "once"])
def test_nothing_stands_in_where_something_moves(
    toy_base: str, toy_rows: Rows, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "full" if case == "embeddings" else "lora"
    dropout = 0.1 if case == "dropout" else 0.0
    model = Model(
        toy_base, Adaptation(kind, rank=2, dropout=dropout), options=LoadingOptions(dtype="float64")
    )
    if case == "too much":
        monkeypatch.setattr(lower, "MOST_BYTES", 1000)
    region = upper(model)
    if case == "lowest layer":
        region = list(model.parameters())
    if case == "embeddings":
        region = [*region, "model.embed_tokens.weight"]
        assert lowest(region) == 0
    if case != "once":
        assert make_prefix_cache(model, region, [toy_rows["unlearn"]]) is None
        return
    assert make_prefix_cache(model, region, [toy_rows["unlearn"]]) is not None
    rows = {s: toy_rows[s][:2] for s in ("unlearn", "retention")}
    seen: list[Any] = []
    plain = Forward.hidden_states
    monkeypatch.setattr(
        Forward, "hidden_states", lambda f, b: (seen.append(f.prefix_cache), plain(f, b))[1]
    )
    options: dict[str, Any] = {"region": region, "lr": 1e-3, "batch_size": 2, "accumulation": 1}
    unlearn(
        Start(model, rows["unlearn"], rows, seed=0),
        UnlearnSettings(method="gradient_ascent", epochs=1, **options),
    )
    assert seen == [None]


def test_rows_that_are_not_held_take_the_whole_way(toy: Model, toy_rows: Rows) -> None:
    batch = collate(toy_rows["retention"], toy.pad)
    assert toy.capabilities.packing
    plain = hidden_states(toy, batch)
    forward = Forward(toy, make_prefix_cache(toy, upper(toy), [toy_rows["unlearn"]]))
    assert forward.prefix_cache is not None
    assert torch.equal(forward.hidden_states(batch), plain)
    both = collate([*toy_rows["unlearn"], *toy_rows["retention"]], toy.pad)
    found = forward.hidden_states(both)[-len(plain) :]
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)
