"""Where every method starts: the memorized model, and the way back to it."""

from __future__ import annotations

import pytest
import torch

from knowundo.data.encoded import Encoded
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.model import Model
from knowundo.registry import get
from knowundo.unlearning.settings import UnlearnSettings, retained_scopes
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

Rows = dict[str, list[Encoded]]


def shifted(model: Model, names: list[str]) -> None:
    """Move some weights, as training does."""
    own = model.parameters()
    with torch.no_grad():
        for name in names:
            own[name].add_(0.5)


def test_of_all_weights_only_what_changes_is_copied(toy_base: str, toy_rows: Rows) -> None:
    model = Model(toy_base, Adaptation("full"))
    memorized, names = model.state(), list(model.parameters())
    start = Start(model, toy_rows["unlearn"], toy_rows, seed=0)
    assert start.changed == []
    start.copy_memorized(names[:2])
    shifted(model, names[:2])
    start.copy_memorized(names[:3])  # of the first two it has copies of what they were
    assert start.changed == names[:3]
    shifted(model, names[2:3])
    assert not torch.equal(model.state()[names[0]], memorized[names[0]])
    assert start.restore() is model
    assert all(torch.equal(value, memorized[name]) for name, value in model.state().items())


def test_methods_see_the_same_batches(toy: Model, toy_rows: Rows) -> None:
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    found = []
    for name in ("gradient_ascent", "npo"):
        entry, settings = get("method", name), UnlearnSettings(name, 2, 3, 4, retained=2)
        batches, accumulation = start.batches(entry, entry.bind({}), settings)
        assert accumulation == 4
        assert [len(batch.unlearn) for batch in batches] == [3, 2, 3, 2]
        assert {len(batch.retention) for batch in batches} == {2}
        found.append([[*b.unlearn.encoded, *b.retention.encoded] for b in batches])
    assert found[0] == found[1]


def test_rows_of_the_retention_half_are_of_the_scope_that_is_asked_for(
    toy: Model, toy_rows: Rows
) -> None:
    start, entry = Start(toy, toy_rows["unlearn"], toy_rows, seed=0), get("method", "npo")
    for asked in ("retention", "general", ("retention", "general")):
        settings = UnlearnSettings("npo", 1, 5, 1, retain_on=asked)
        batches, _ = start.batches(entry, entry.bind({}), settings)
        scopes = {row.record.scope for batch in batches for row in batch.retention.encoded}
        assert scopes == set(retained_scopes(asked))


@pytest.mark.parametrize("tokens", [10_000, 1])
def test_the_reference_is_read_of_both_scopes(
    toy: Model, toy_rows: Rows, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each micro-batch may lack a scope, and the reference is the memorized model of both."""
    monkeypatch.setattr(Model, "tokens", tokens)
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    arguments = {"retention": 0.0, "divergence": 1.0}
    settings = UnlearnSettings(
        "npo", 4, 5, 1, lr=1e-3, retain_on=["retention", "general"], retained=4, arguments=arguments
    )
    curve = unlearn(start, settings).curve
    assert curve[0]["parts"]["retention"] == pytest.approx(0, abs=1e-9)
    assert curve[-1]["parts"]["retention"] > 1e-9
    held = {row.record.scope for row in start.reference.states}
    assert held == {"unlearn", "retention", "general"}
