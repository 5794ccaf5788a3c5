"""Numbers that a method carries from step to step: PDU's multiplier."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conftest import naive_ce, randomize
from knowundo.data.batches import PairedBatch, collate
from knowundo.data.encoded import Encoded
from knowundo.entry import Entry
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.recipes.reading import load_recipe
from knowundo.registry import get
from knowundo.runs.checks import check
from knowundo.unlearning.method_state import MethodState
from knowundo.unlearning.method_training import MethodTraining
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]


@pytest.fixture
def start(toy: Model, toy_rows: Rows) -> Start:
    return Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)


def settings(**arguments: Any) -> UnlearnSettings:
    return UnlearnSettings("pdu", 3, 2, 1, lr=1e-3, arguments=arguments)


def multipliers(curve: list[dict[str, Any]]) -> list[float]:
    """λ of each step, from the parts that it is a factor of."""
    return [row["parts"]["retention"] / row["parts"]["constraint"] for row in curve]


@pytest.mark.parametrize("multiplier", [0.0, 2.5])
def test_loss_equals_formula(toy: Model, toy_rows: Rows, start: Start, multiplier: float) -> None:
    entry = get("method", "pdu")
    randomize(toy, seed=9)
    batch = PairedBatch(*(collate(toy_rows[s], toy.pad) for s in ("unlearn", "retention")))
    bound = entry.bind({"epsilon": 0.7, "unlearn": 0.2})
    found = start.parts(entry, bound, batch, set(), state={"multiplier": multiplier})

    terms = []
    for row in toy_rows["unlearn"]:
        logits = toy.net(input_ids=torch.tensor([row.ids])).logits[0, row.answer_from - 1 : -1]
        terms.append(((logits.max(-1).values - logits.mean(-1)) ** 2).mean())
    excess = torch.stack([naive_ce(toy, row) for row in toy_rows["retention"]]).mean() - 0.7
    torch.testing.assert_close(found["unlearn"], 0.2 * torch.stack(terms).mean(), rtol=1e-9, atol=0)
    torch.testing.assert_close(found["retention"], multiplier * excess, rtol=1e-9, atol=0)
    torch.testing.assert_close(found["constraint"], excess, rtol=1e-9, atol=0)
    assert not found["constraint"].requires_grad


def test_the_multiplier_follows_the_violation_after_the_warm_up(start: Start) -> None:
    done = unlearn(start, settings(multiplier=2.0, dual_rate=0.5, warmup=0.4))
    assert len(done.curve) == 9
    wanted = [2.0]
    for number, row in enumerate(done.curve, start=1):
        grown = 0.5 * row["parts"]["constraint"] if number / 9 > 0.4 else 0.0
        wanted.append(max(0.0, wanted[-1] + grown))
    assert wanted[3] == 2.0 != wanted[4]
    assert multipliers(done.curve) == pytest.approx(wanted[:-1], rel=1e-9)
    assert done.facts["state"] == {"multiplier": pytest.approx(wanted[-1], rel=1e-9)}


def test_a_constraint_that_holds_has_no_multiplier(start: Start) -> None:
    done = unlearn(start, settings(epsilon=1e3, warmup=0.0))
    assert multipliers(done.curve) == [1.0, *[0.0] * 8]
    assert done.facts["state"] == {"multiplier": 0.0}


def test_micro_batches_change_nothing(
    toy: Model, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = unlearn(start, settings(warmup=0.0))
    monkeypatch.setattr(Model, "tokens", 1)
    cut = unlearn(start, settings(warmup=0.0))
    assert multipliers(cut.curve) == pytest.approx(multipliers(whole.curve), rel=1e-5)


def test_each_training_begins_with_the_first_state(start: Start) -> None:
    """A training that is repeated, after it diverged, and the next attempt of a search."""
    training = MethodTraining(start, settings(warmup=0.0))
    first = training.train()
    end = training.state.values
    start.restore()
    assert training.train() == first
    assert training.state.values == end != get("method", "pdu").first_state(training.bound)


def test_a_state_is_what_its_checkpoint_held() -> None:
    bound = get("method", "pdu").bind({"multiplier": 0.1, "dual_rate": 1 / 3, "warmup": 0.0})
    one = MethodState(get("method", "pdu"), bound, 4)
    one.after_step({"constraint": 0.7})
    other = MethodState(get("method", "pdu"), bound, 4)
    other.load_state_dict(one.state_dict())
    for state in (one, other):
        state.after_step({"constraint": -0.123})
    assert other.values == one.values == {"multiplier": 0.1 + 1 / 3 * 0.7 + 1 / 3 * -0.123}


def test_a_method_without_a_state_has_none(start: Start) -> None:
    done = unlearn(start, UnlearnSettings("gradient_ascent", 1, 5, 1, lr=1e-3))
    assert "state" not in done.facts
    assert get("method", "gradient_ascent").first_state({}) == {}


def test_a_state_takes_the_methods_own_arguments() -> None:
    def loss(step: Any, *, rate: float = 1.0) -> Any:
        """A loss."""

    with pytest.raises(BadInput, match="did you mean 'rate'"):

        @Entry("method", "loss", loss).state
        def later(before: Any, parts: Any, done: float, *, rat: float) -> Any:
            """A state."""


def test_half_a_row_at_a_time_is_refused() -> None:
    recipe = load_recipe(None, ["unlearn.variants=[{preset: pdu}]", "compat=[mixed_batches]"])[0]
    with pytest.raises(BadInput, match="pdu has a state that depends on both"):
        check(recipe)
