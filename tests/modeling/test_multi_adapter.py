"""Several adapters in one batched forward, against each of them by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from conftest import randomize, records, score
from knowundo.data.batches import collate
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import encode
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.fast.prefix_cache import layers_of
from knowundo.modeling.forward import Forward, answer_logits
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.multi_adapter import batched_adapters, can_batch_adapters
from knowundo.modeling.variant import ModelVariant
from knowundo.modeling.weights import save_state
from knowundo.scoring.generation import BATCH
from knowundo.scoring.table import fill_a_batch, score_adapters

Rows = dict[str, list[Encoded]]


@pytest.fixture
def variants(toy: Model, tmp_path: Path) -> list[ModelVariant]:
    """The base and three adapters of a shape that is not the model's own."""
    return [ModelVariant("base", "base"), *adapters(toy, tmp_path, rank=3)]


def adapters(model: Model, folder: Path, rank: int) -> list[ModelVariant]:
    model.adapt(Adaptation("lora", rank=rank, alpha=5))
    made = []
    for number in range(3):
        (own := folder / f"{rank}-{number}").mkdir()
        randomize(model, seed=number)
        save_state(model, own)
        made.append(ModelVariant(own.name, "given", own))
    model.adapt(Adaptation("lora", rank=2, alpha=4))
    return made


def logits(forward: Forward, rows: Sequence[Encoded]) -> list[torch.Tensor]:
    return [found for _, found in answer_logits(forward, rows)]


@pytest.mark.parametrize("packed", [True, False])
def test_each_has_the_logits_that_it_has_alone(
    toy: Model,
    toy_rows: Rows,
    variants: list[ModelVariant],
    packed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = toy_rows["unlearn"]
    assert toy.capabilities.packing
    if not packed:
        monkeypatch.setitem(vars(toy.capabilities), "packing_window", 0)
    with batched_adapters(toy, variants) as forward:
        together = logits(forward, rows)
    for number, variant in enumerate(variants):
        toy.use(variant)
        for own, alone in zip(together, logits(Forward(toy), rows), strict=True):
            torch.testing.assert_close(own[number], alone, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(together[0][1], together[0][2])


def test_beside_weights_of_half_precision(tmp_path: Path) -> None:
    model = Model(
        "embedded", Adaptation("lora", rank=2, alpha=4), options=LoadingOptions(dtype="bfloat16")
    )
    rows = encode(records("unlearn", "train", 3), model.tokenizer)
    variants = adapters(model, tmp_path, rank=2)
    with batched_adapters(model, variants) as forward:
        together = logits(forward, rows)
    for number, variant in enumerate(variants):
        model.use(variant)
        for own, alone in zip(together, logits(Forward(model), rows), strict=True):
            assert float((own[number] - alone).norm() / alone.norm()) < 0.03


def test_tables_are_those_of_each_alone(
    toy: Model, toy_rows: Rows, variants: list[ModelVariant]
) -> None:
    """Teacher forced and said freely; questions of several lengths are padded."""
    rows = [*toy_rows["unlearn"], *toy_rows["retention"]]
    with batched_adapters(toy, variants) as forward:
        tables = score_adapters(forward, rows, generated_splits=["train"])
    assert len({tuple(table["said"]) for table in tables}) == len(variants)
    for variant, table in zip(variants, tables, strict=True):
        toy.use(variant)
        alone = score(toy, rows, generated_splits=["train"])
        pd.testing.assert_frame_equal(table, alone, rtol=1e-5)


def test_afterwards_the_model_is_as_before(
    toy: Model, toy_rows: Rows, variants: list[ModelVariant]
) -> None:
    toy.use(variants[2])
    plain = logits(Forward(toy), toy_rows["unlearn"])
    with pytest.raises(KeyError), batched_adapters(toy, variants):
        raise KeyError
    assert "batched" not in {n for m in toy.net.modules() for n in vars(m)}
    toy.use(variants[2])
    for before, after in zip(plain, logits(Forward(toy), toy_rows["unlearn"]), strict=True):
        assert torch.equal(before, after)


def test_the_question_changes_nothing(toy: Model, variants: list[ModelVariant]) -> None:
    toy.adapt(Adaptation("lora", rank=3, alpha=6))
    randomize(toy)
    before, adaptation = toy.state(), toy.adaptation
    assert can_batch_adapters(toy, variants)  # of another shape
    assert toy.adaptation == adaptation
    after = toy.state()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_can_be_batched(toy: Model, toy_base: str, variants: list[ModelVariant]) -> None:
    assert can_batch_adapters(toy, variants)
    whole = Model(toy_base, Adaptation("full"))
    assert not can_batch_adapters(whole, variants[:1])
    toy.use(variants[1])
    layer = next(m for m in toy.net.modules() if hasattr(m, "lora_A"))
    del layer.forward  # not one of those that know of it
    assert not can_batch_adapters(toy, variants)


def test_a_layer_that_sees_tokens_in_another_order_is_found_out(
    toy: Model, variants: list[ModelVariant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As experts do, to which tokens are routed: their rows are not an adapter's share."""
    toy.use(variants[1])
    layer: Any = layers_of(toy)[0].mlp
    plain = layer.forward

    def routed(x: torch.Tensor) -> Any:
        return plain(x.flatten(0, 1).flip(0)).flip(0).view_as(x)

    monkeypatch.setattr(layer, "forward", routed)
    assert not can_batch_adapters(toy, variants)
    assert "batched" not in {n for m in toy.net.modules() for n in vars(m)}


def test_no_gradients(toy: Model, toy_rows: Rows, variants: list[ModelVariant]) -> None:
    batch = collate(toy_rows["unlearn"], toy.pad)
    with (
        batched_adapters(toy, variants) as forward,
        pytest.raises(RuntimeError, match="no gradients"),
    ):
        forward.hidden_states(batch)


def test_as_many_as_fill_a_batch(toy_rows: Rows) -> None:
    rows = toy_rows["unlearn"]
    assert fill_a_batch(rows, ["train"]) == fill_a_batch(rows, []) == 16
    assert fill_a_batch(rows * 5, ["train"]) == BATCH // 25
    assert fill_a_batch(rows * 100, ["train"]) == 1


def test_copies_of_batched_adapters_are_counted_until_they_are_stacked(
    toy: Model, variants: list[ModelVariant]
) -> None:
    with batched_adapters(toy, variants):
        held = toy.snapshots.nbytes()
        assert set(held) == {"initial"}
        lora = sum(parameter.nbytes for parameter in toy.parameters().values())
        assert toy.snapshots.peak >= held.total() + len(variants) * lora
    assert can_batch_adapters(toy, variants)
    assert set(toy.snapshots.nbytes()) == {"initial"}
