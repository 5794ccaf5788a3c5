"""Squares and scores of tensors, a few at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import naive_ce
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.localization.search import LocalizeSettings, localize
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.modeling.squared_gradients import mean_squares

Rows = dict[str, list[Encoded]]


def test_squares_are_of_single_rows(toy: Model, toy_rows: Rows) -> None:
    rows, names = toy_rows["unlearn"], list(toy.parameters())[:3]
    found = mean_squares(toy, rows, names)
    chosen = toy.train_only(names)
    sums = [torch.zeros_like(p) for p in chosen]
    for row in rows:
        for total, value in zip(sums, torch.autograd.grad(naive_ce(toy, row), chosen), strict=True):
            total += value**2 / len(rows)
    for value, expected in zip(found.values(), sums, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-9)
        assert expected.max() > 0


def test_few_tensors_at_a_time_give_the_same_scores(toy_base: str, toy_rows: Rows) -> None:
    model = Model(toy_base, Adaptation("full"), options=LoadingOptions(dtype="float64"))
    found = []
    for held in (None, 2000):
        settings = LocalizeSettings(
            {"fisher_ratio": {}, "wagle": {"share": 0.5}},
            copies=1, batch_size=4, draws=1, seed=0, held=held,
        )  # fmt: skip
        found.append(localize(model, toy_rows["unlearn"], toy_rows["retention"], settings))
    whole, few = found
    assert whole["regions"] == few["regions"]
    assert {"fisher_ratio", "random-wagle-1"} <= set(whole["regions"])
    for one, other in zip(whole["tensors"], few["tensors"], strict=True):
        assert one["scores"] == pytest.approx(other["scores"], rel=1e-6)
    sizes = whole["parameters"]
    assert 0 < sizes["wagle"] <= 0.5 * sizes["everything"]


PLUGIN = """
from knowundo.registry import localizer

@localizer(needs=("weights",))
def endless(tensor):
    '''Divides by zero.'''
    return tensor.pool(tensor.weights / 0)
"""


def test_a_score_that_is_not_finite_is_named(
    toy: Model, toy_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knowundo import registry

    monkeypatch.setitem(registry.ENTRIES, "localizer", dict(registry.entries("localizer")))
    (tmp_path / "endless.py").write_text(PLUGIN)
    monkeypatch.setenv("KNOWUNDO_PLUGINS", str(tmp_path))
    settings = LocalizeSettings({"endless": {}}, copies=1, batch_size=4, draws=0, seed=0)
    with pytest.raises(BadInput, match=r"localize\.endless: the score of .* is no finite number"):
        localize(toy, toy_rows["unlearn"], toy_rows["retention"], settings)
