"""A memorized toy in float64 whose base differs, and gradients row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from conftest import naive_ce, randomize
from knowundo.data.encoded import Encoded
from knowundo.localization.noise import noisy_copies
from knowundo.localization.search import LocalizeSettings, score_tensors
from knowundo.modeling.model import Model

Tensors = dict[str, torch.Tensor]


@dataclass
class Memorized:
    """Scores of localizers, and what a formula is computed of.

    Nothing but the whole model's logits of one unpadded row is used for formulas.
    """

    model: Model
    rows: dict[str, list[Encoded]]
    base: Tensors

    def __post_init__(self) -> None:
        self.sizes = {name: p.numel() for name, p in self.model.parameters().items()}

    def scores(self, localizer: str, **arguments: Any) -> dict[str, torch.Tensor]:
        settings = LocalizeSettings({localizer: arguments}, copies=2, batch_size=3, draws=0, seed=5)
        rows = self.rows["unlearn"], self.rows["retention"]
        found = score_tensors(self.model, *rows, settings, self.sizes)
        return found.scores[localizer]

    def row_gradients(self, scope: str) -> list[Tensors]:
        """Of each noisy copy of the scope's rows, as the localizers' settings draw them."""
        number = ("unlearn", "retention").index(scope)
        vocabulary = self.model.embeddings
        noisy = noisy_copies(self.rows[scope], copies=2, vocabulary=vocabulary, seed=5 + number)
        own = dict(zip(self.sizes, self.model.train_only(self.sizes), strict=True))
        assert list(own) == list(self.model.parameters())
        return [
            dict(
                zip(own, torch.autograd.grad(naive_ce(self.model, row), own.values()), strict=True)
            )
            for row in noisy
        ]

    def gradient(self, scope: str) -> Tensors:
        rows = self.row_gradients(scope)
        return {name: sum(row[name] for row in rows) / len(rows) for name in self.sizes}

    def squares(self, scope: str) -> Tensors:
        rows = self.row_gradients(scope)
        return {name: sum(row[name] ** 2 for row in rows) / len(rows) for name in self.sizes}

    def weights(self) -> Tensors:
        return {name: p.detach() for name, p in self.model.parameters().items()}

    def loss(self, rows: Sequence[Encoded]) -> float:
        with torch.no_grad():
            return float(sum(naive_ce(self.model, row) for row in rows) / len(rows))


@pytest.fixture
def memorized(toy: Model, toy_rows: dict[str, list[Encoded]]) -> Memorized:
    base = toy.state()
    randomize(toy, seed=8)
    return Memorized(toy, toy_rows, base)


def same(found: dict[str, torch.Tensor], expected: dict[str, Any]) -> None:
    """Equal to the rounding of the norms, which are in float32; and not all the same."""
    assert set(found) == set(expected)
    for name, score in found.items():
        assert float(score) == pytest.approx(float(expected[name]), rel=1e-5), name
    assert len({float(score) for score in found.values()}) > len(found) // 2
