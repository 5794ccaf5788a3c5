"""Copies of weights: who holds them, and how many bytes they are."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from conftest import randomize
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.training import unlearn
from unlearning.knowing import SETTINGS, begin


def test_only_a_regions_originals_are_copied(
    toy_base: str, toy_rows: dict[str, list[Encoded]]
) -> None:
    """Of all weights no second copy is made: not when loading, not when a region is trained."""
    model = Model(toy_base, Adaptation("full"), options=LoadingOptions(dtype="float64"))
    assert model.initial.tensors == {}
    before = model.state()
    region = [name for name in before if "layers.1.mlp" in name]
    start = begin(model, toy_rows)
    unlearn(start, UnlearnSettings(lr=1e-2, region=region, **SETTINGS))
    assert sorted(start.changed) == sorted(model.initial.tensors) == sorted(region)
    moved = model.state()
    assert {n for n in before if not torch.equal(before[n], moved[n])} == set(region)
    start.restore()
    assert all(torch.equal(before[n], v) for n, v in model.state().items())


def test_loading_other_weights_copies_what_they_change(toy_base: str) -> None:
    model = Model(toy_base, Adaptation("full"), options=LoadingOptions(dtype="float64"))
    before = model.state()
    name = next(n for n in before if n.endswith("up_proj.weight"))
    model.restore(before | {name: before[name] + 1})
    assert list(model.initial.tensors) == [name]
    model.reset()
    assert all(torch.equal(before[n], v) for n, v in model.state().items())


def test_randomize_leaves_what_a_lora_was(toy: Model) -> None:
    held = {name: value.clone() for name, value in toy.initial.tensors.items()}
    randomize(toy, seed=9)
    toy.reset()
    assert all(torch.equal(held[n], v) for n, v in toy.state().items())


def test_a_copy_is_counted_until_its_holder_drops_it(toy: Model) -> None:
    held, names = toy.snapshots.nbytes(), list(toy.parameters())[:2]
    copy = toy.snapshot("a test", names)
    assert toy.snapshots.nbytes() == held + Counter({"a test": copy.nbytes})
    assert copy.nbytes == sum(toy.parameters()[name].nbytes for name in names) > 0
    peak = toy.snapshots.peak
    del copy
    assert toy.snapshots.nbytes() == held
    assert toy.snapshots.peak == peak > held.total()


def test_a_copy_does_not_follow_the_weights(toy: Model) -> None:
    (name, parameter), *_ = toy.parameters().items()
    copy = toy.snapshot("a test", [name])
    before = parameter.detach().clone()
    with torch.no_grad():
        parameter.add_(1.0)
    assert torch.equal(copy.tensors[name], before)
    toy.extend_snapshot(copy, [name])  # held already: what it was stays
    assert torch.equal(copy.tensors[name], before)


def test_a_copy_of_an_unknown_parameter_is_refused(toy: Model) -> None:
    with pytest.raises(BadInput, match="no parameter 'elsewhere'"):
        toy.snapshot("a test", ["elsewhere"])
