"""Gradients, the region rule, its controls, and the guard around a region."""

from __future__ import annotations

import pytest
import torch

from conftest import naive_ce
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.localization.gradients import Gradients, Measured, in_groups, mean_gradients
from knowundo.localization.noise import noisy_copies
from knowundo.localization.search import LocalizeSettings, localize
from knowundo.modeling import regions
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.registry import get
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]


def test_batched_gradients_equal_row_by_row(toy: Model, toy_rows: Rows) -> None:
    noisy = noisy_copies(toy_rows["unlearn"], copies=2, vocabulary=500, seed=0)
    batched = mean_gradients(toy, noisy, batch_size=4)
    chosen = toy.train_only(toy.parameters())
    sums = [torch.zeros_like(p) for p in chosen]
    for row in noisy:
        for total, value in zip(sums, torch.autograd.grad(naive_ce(toy, row), chosen), strict=True):
            total += value / len(noisy)
    for value, expected in zip(batched.values(), sums, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
        assert expected.abs().max() > 0


def test_noise_stays_inside_the_answer(toy_rows: Rows) -> None:
    rows = toy_rows["unlearn"]
    noisy = noisy_copies(rows, copies=3, vocabulary=500, seed=0)
    assert len(noisy) == 3 * len(rows)
    changed = 0
    for number, copy in enumerate(noisy):
        row = rows[number // 3]
        assert copy.prompt == row.prompt
        assert copy.ids[-1] == row.ids[-1]
        differ = sum(a != b for a, b in zip(copy.ids, row.ids, strict=True))
        assert differ <= (row.answer_length - 1) // 2
        changed += differ
    assert changed > 0


def planted() -> Measured:
    """Four tensors: only `b` has a large unlearn gradient that points away from retention's."""
    one = torch.tensor([1.0, 1.0])
    return Gradients(
        unlearn={"a": one, "b": one, "c": 0.01 * one, "d": 0.01 * one},
        retention={"a": one, "b": -one, "c": one, "d": -one},
    ).measured()


def test_planted_case_yields_the_known_region() -> None:
    memflex = get("localizer", "memflex")
    assert memflex(planted(), **memflex.bind({"mu": 0.9, "sigma": 0.1})) == {"b"}
    assert planted().cosine("a") == pytest.approx(1)
    assert planted().cosine("b") == pytest.approx(-1)
    assert planted().magnitude("c") == pytest.approx(0.01)


def test_thresholds_that_nothing_passes_are_an_error() -> None:
    with pytest.raises(BadInput, match="raise mu or lower sigma"):
        get("localizer", "memflex")(planted(), mu=-2.0, sigma=0.1)


def test_controls_have_as_many_parameters(toy: Model, toy_rows: Rows) -> None:
    found = localize(
        toy,
        toy_rows["unlearn"],
        toy_rows["retention"],
        LocalizeSettings({"memflex": {}}, copies=1, draws=3, batch_size=8, seed=0),
    )
    sizes = found["parameters"]
    assert 0 < sizes["memflex"] < sizes["everything"]
    draws = [found["regions"][f"random-{n}"] for n in (1, 2, 3)]
    assert {sizes[f"random-{n}"] for n in (1, 2, 3)} == {sizes["memflex"]}
    assert len({tuple(draw) for draw in draws}) > 1
    assert len(found["tensors"]) == len(toy.parameters())


@pytest.mark.parametrize(
    "method",
    ["gradient_ascent", "random_label", "adversarial_sample", "ascent_plus_kl_divergence"],
)
def test_outside_the_region_no_bit_moves(toy: Model, toy_rows: Rows, method: str) -> None:
    before = {name: p.detach().clone() for name, p in toy.net.named_parameters()}
    region = sorted(toy.parameters())[::3]
    start = Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)
    unlearn(
        start,
        UnlearnSettings(
            method=method, region=region, lr=1e-2, epochs=2, batch_size=2, accumulation=1
        ),
    )
    moved = {
        name for name, p in toy.net.named_parameters() if not torch.equal(p.detach(), before[name])
    }
    assert moved == set(region)


def test_place_of_a_lora_tensor() -> None:
    name = "base_model.model.model.layers.3.mlp.down_proj.lora_A.default.weight"
    assert regions.place(name) == {"layer": 3, "module": "down_proj", "tensor": "lora_A"}
    assert regions.place("transformer.h.0.attn.c_attn.lora_B.default.weight")["module"] == "c_attn"
    assert regions.place("model.layers.0.input_layernorm.weight")["module"] == "input_layernorm"


def test_random_region_matches_kind_and_size() -> None:
    sizes = {f"{module}.lora_{x}.weight": 8 for module in "abcdef" for x in "AB"}
    region = [name for name in sizes if "lora_B" in name][:3]
    for seed in range(5):
        drawn = regions.random_like(region, sizes, seed)
        assert len(drawn) == 3
        assert all("lora_B" in name for name in drawn)


def test_overlap_of_two_regions() -> None:
    layers, weight = "base_model.model.model.layers", "lora_A.default.weight"
    one = [f"{layers}.{n}.mlp.up_proj.{weight}" for n in (0, 1)]
    other = [one[0], f"{layers}.1.self_attn.q_proj.{weight}"]
    assert regions.overlap(one, other) == {
        "all": {"all": 1 / 3},
        "module": {"up_proj": 1 / 2, "q_proj": 0.0},
        "layer": {"0": 1.0, "1": 0.0},
    }


def find(model: Model, rows: Rows, **settings: object) -> dict[str, object]:
    options = {"copies": 1, "batch_size": 4, "draws": 2, "seed": 0} | settings
    return localize(
        model, rows["unlearn"], rows["retention"], LocalizeSettings({"memflex": {}}, **options)
    )


@pytest.mark.parametrize("held", [1, 2000, 10**9])
def test_gradients_of_few_tensors_at_a_time_give_the_same_region(
    toy_base: str, toy_rows: Rows, held: int
) -> None:
    model = Model(toy_base, Adaptation("full"), options=LoadingOptions(dtype="float64"))
    few, whole = find(model, toy_rows, held=held), find(model, toy_rows)
    assert few["regions"] == whole["regions"]
    for name in ("cosine", "magnitude"):
        one, other = ([row[name] for row in found["tensors"]] for found in (few, whole))  # type: ignore[attr-defined]
        assert one == pytest.approx(other, rel=1e-6, abs=1e-9)


def test_a_group_holds_no_more_than_it_may() -> None:
    sizes = {"a": 5, "b": 5, "c": 11, "d": 1, "e": 9}
    assert list(in_groups(sizes, 10)) == [["a", "b"], ["c"], ["d", "e"]]
    assert list(in_groups(sizes, None)) == [list(sizes)]


def test_beside_a_fresh_lora_regions_are_whole_modules(toy_base: str, toy_rows: Rows) -> None:
    """A has no gradient while B is zero: B speaks for its module, and both are trained."""
    model = Model(toy_base, Adaptation("lora", rank=2), options=LoadingOptions(dtype="float64"))
    assert model.is_fresh
    found = find(model, toy_rows)
    assert {tensor["tensor"] for tensor in found["tensors"]} == {"lora_B"}
    assert all(tensor["magnitude"] > 0 for tensor in found["tensors"])
    names = found["regions"]
    for region in (names["memflex"], names["random-1"], names["random-2"]):
        modules = {regions.module_of(name) for name in region}
        assert len(region) == 2 * len(modules)
        assert 0 < len(modules) < len(found["tensors"])
    sizes = found["parameters"]
    assert sizes["memflex"] == sizes["random-1"] == sizes["random-2"]


def test_a_lora_that_was_trained_is_not_fresh(toy: Model, toy_rows: Rows) -> None:
    assert not toy.is_fresh
    kinds = {tensor["tensor"] for tensor in find(toy, toy_rows)["tensors"]}
    assert kinds == {"lora_A", "lora_B"}
