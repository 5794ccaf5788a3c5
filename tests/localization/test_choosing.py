"""Scores become a region of a given share."""

from __future__ import annotations

import pytest
import torch

from knowundo.errors import BadInput
from knowundo.localization.choosing import choose, choose_weights, module_name
from knowundo.region_rule import RegionRule


def scores(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([[value]]) for name, value in values.items()}


def test_the_highest_up_to_the_share() -> None:
    given, sizes = scores(a=1, b=4, c=3, d=2), {"a": 10, "b": 10, "c": 20, "d": 10}
    assert choose(given, sizes, RegionRule(share=0.6), "x") == {"b", "c"}
    assert choose(given, sizes, RegionRule(share=0.58), "x") == {"b"}
    assert choose(given, sizes, RegionRule(share=0.01), "x") == {"b"}  # at least one
    assert choose(given, sizes, RegionRule(share=1.0), "x") == set(given)


def test_of_a_and_b_the_same_share() -> None:
    given = {f"{m}.lora_{x}.weight": torch.tensor(m * (100 if x == "B" else 1.0))
             for m in range(1, 5) for x in "AB"}  # fmt: skip
    sizes = dict.fromkeys(given, 8)
    region = choose(given, sizes, RegionRule(share=0.5), "x")
    assert region == {f"{m}.lora_{x}.weight" for m in (3, 4) for x in "AB"}


def test_modules_are_taken_whole() -> None:
    given = scores(**{"a.weight": 1, "a.bias": 9, "b.weight": 2, "b.bias": 2})
    sizes = {"a.weight": 9, "a.bias": 1, "b.weight": 9, "b.bias": 1}
    rule = RegionRule(share=0.5, granularity="module")
    assert choose(given, sizes, rule, "x") == {"b.weight", "b.bias"}  # 2 against 1.8


def test_equal_scores_are_refused() -> None:
    with pytest.raises(BadInput, match="every tensor has the same score"):
        choose(scores(a=1, b=1), {"a": 1, "b": 1}, RegionRule(), "x")


def test_rows_of_all_tensors_are_compared() -> None:
    given = {"a": torch.tensor([[1.0], [5.0]]), "b": torch.tensor([[4.0], [0.0]])}
    shapes = {"a": torch.Size((2, 3)), "b": torch.Size((2, 2))}
    rule = RegionRule(share=0.5, granularity="row")
    masks = choose_weights(given, shapes, rule, "x")
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "a": [[False] * 3, [True] * 3], "b": [[True] * 2, [False] * 2],
    }  # fmt: skip
    few = choose_weights(given, shapes, RegionRule(share=0.01, granularity="row"), "x")
    assert list(few) == ["a"]  # at least one row
    with pytest.raises(BadInput, match="every row has the same score"):
        choose_weights({"a": torch.ones(2, 1)}, {"a": shapes["a"]}, rule, "x")


def test_single_weights() -> None:
    scores = torch.arange(6.0).view(2, 3)
    rule = RegionRule(share=0.34, granularity="weight")
    masks = choose_weights({"w": scores}, {"w": scores.shape}, rule, "x")
    assert masks["w"].tolist() == [[False] * 3, [False, True, True]]


def test_the_module_of_a_parameter() -> None:
    assert module_name("layers.0.q.lora_A.default.weight") == "layers.0.q"
    assert module_name("layers.0.q.bias") == "layers.0.q"
