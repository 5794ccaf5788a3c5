"""Regions and their controls."""

from __future__ import annotations

import pytest

from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.localization.search import LocalizeSettings, localize
from knowundo.modeling import regions
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from localization.finding import find

Rows = dict[str, list[Encoded]]


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
    rows = LocalizeSettings(
        {"saliency": {"granularity": "row"}}, copies=1, batch_size=8, draws=0, seed=0
    )
    with pytest.raises(BadInput, match="granularity row: beside a LoRA without effect yet"):
        localize(model, toy_rows["unlearn"], toy_rows["retention"], rows)


def test_a_lora_that_was_trained_is_not_fresh(toy: Model, toy_rows: Rows) -> None:
    assert not toy.is_fresh
    kinds = {tensor["tensor"] for tensor in find(toy, toy_rows)["tensors"]}
    assert kinds == {"lora_A", "lora_B"}
