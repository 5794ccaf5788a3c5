"""Localizers that score gradients and weights, against their formulas."""

from __future__ import annotations

import numpy as np
import torch

from localization.localizers.conftest import Memorized, same


def test_saliency(memorized: Memorized) -> None:
    gradient = memorized.gradient("unlearn")
    expected = {name: g.abs().mean() for name, g in gradient.items()}
    same(memorized.scores("saliency"), expected)


def test_fisher_ratio_sums_squares_of_single_rows(memorized: Memorized) -> None:
    one, other = memorized.squares("unlearn"), memorized.squares("retention")
    expected = {name: one[name].sum() / other[name].sum() for name in one}
    same(memorized.scores("fisher_ratio"), expected)


def test_weight_change(memorized: Memorized) -> None:
    now = memorized.weights()
    expected = {name: (now[name] - memorized.base[name]).abs().mean() for name in now}
    same(memorized.scores("weight_change"), expected)


def test_snip(memorized: Memorized) -> None:
    now, gradient = memorized.weights(), memorized.gradient("unlearn")
    expected = {name: (now[name] * gradient[name]).abs().mean() for name in now}
    same(memorized.scores("snip"), expected)


def test_wagle(memorized: Memorized) -> None:
    now, one, other = memorized.weights(), *map(memorized.gradient, ("unlearn", "retention"))
    expected = {n: ((now[n] - other[n] / 0.3) * one[n]).abs().mean() for n in now}
    same(memorized.scores("wagle", gamma=0.3), expected)


def test_grail_counts_what_matters_for_unlearning_only(memorized: Memorized) -> None:
    one, other = map(memorized.gradient, ("unlearn", "retention"))

    def top(gradient: torch.Tensor) -> set[int]:
        values = gradient.numpy().ravel()
        distance = np.abs((values - values.mean()) / values.std())
        return set(np.argsort(distance)[-round(0.4 * len(values)) :].tolist())

    expected = {n: len(top(one[n]) - top(other[n])) / one[n].numel() for n in one}
    found = memorized.scores("grail", top=0.4)
    assert {name: float(score) for name, score in found.items()} == expected
    assert len(set(expected.values())) > 2
