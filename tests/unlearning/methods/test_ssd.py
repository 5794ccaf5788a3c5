"""SSD: importance and dampened weights against their formulas, and what they do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conftest import randomize
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.registry import get
from knowundo.unlearning.methods.ssd import dampened
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn
from unlearning.methods.conftest import Moved

Rows = dict[str, list[Encoded]]


def test_loss_is_its_formula(moved: Moved) -> None:
    found = moved.parts("ssd", retention=0.5, divergence=2.0)
    kept = 0.5 * moved.mean(moved.cross_entropy, "retention")
    moved.same(found, {"retention": kept + 2 * moved.mean(moved.kl, "retention")})


def test_importance_is_the_mean_of_squared_gradients(moved: Moved) -> None:
    randomize(moved.model, seed=2)
    start = Start(moved.model, moved.rows["unlearn"], moved.rows, seed=0)
    columns = start.columns(get("method", "ssd"))
    names = list(moved.model.parameters())
    for scope in ("unlearn", "retention"):
        chosen = moved.model.train_only(names)
        each = [torch.autograd.grad(moved.cross_entropy(row), chosen) for row in moved.rows[scope]]
        moved.model.train_only([])
        for name, gradients in zip(names, zip(*each, strict=True), strict=True):
            wanted = torch.stack(gradients).square().mean(0)
            torch.testing.assert_close(columns[scope][name], wanted, rtol=1e-4, atol=1e-9)


def test_weights_that_matter_more_are_dampened() -> None:
    unlearn_, retention = torch.tensor([8.0, 8, 8, 0]), torch.tensor([4.0, 1, 0, 0])
    columns = {"unlearn": {"w": unlearn_}, "retention": {"w": retention}}
    given: dict[str, Any] = {"alpha": 3.0, "dampening": 2.0}
    found = dampened({"w": torch.full((4,), 12.0)}, columns, 0, **given)
    # 8 < 3·4 stays; of 8 > 3·1 two eighths are left; nothing where only unlearn rows matter.
    torch.testing.assert_close(found["w"], torch.tensor([12.0, 3.0, 0.0, 12.0]))
    more = dampened({"w": torch.full((4,), 12.0)}, columns, 0, alpha=3.0, dampening=100.0)
    torch.testing.assert_close(more["w"], torch.tensor([12.0, 12.0, 0.0, 12.0]))  # never more


def test_rows_are_drawn_and_the_region_alone_begins_elsewhere(
    toy: Model, toy_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    randomize(toy, seed=5)
    before, counts = toy.state(), list[int]()
    from knowundo.unlearning.scorer import Scorer

    measure = Scorer.squared_gradients

    def counting(own: Scorer, rows: Any) -> Any:
        counts.append(len(rows))
        return measure(own, rows)

    monkeypatch.setattr(Scorer, "squared_gradients", counting)
    region = [name for name in before if "layers.1." in name]
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    given = {"rows": 3, "alpha": 0.5, "dampening": 0.1}
    unlearn(start, UnlearnSettings("ssd", 1, 5, 1, lr=1e-30, arguments=given, region=region))
    assert counts == [3, 3]
    moved = {name for name, value in toy.state().items() if not torch.equal(value, before[name])}
    assert moved
    assert moved <= set(region)


def test_a_beginning_that_changes_nothing_is_told(toy: Model, toy_rows: Rows) -> None:
    """A new LoRA has B = 0, of which any share is 0; an alpha can be too high for any weight."""
    toy.overwrite({n: torch.zeros_like(v) for n, v in toy.parameters().items() if "lora_B" in n})
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    settings = UnlearnSettings("ssd", 1, 5, 1, lr=1e-30, arguments={"rows": 3, "alpha": 1e9})
    with pytest.raises(BadInput, match=r"method ssd: the LoRA .* is new.* model.adaptation=full"):
        unlearn(start, settings)
    randomize(toy, seed=5)
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    unlearn(start, settings)
    assert any("ssd: no weight was changed" in note for note in toy.notes.texts)
