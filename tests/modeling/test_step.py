"""A step computes what a loss reads, and one forward gives what several give."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from knowundo.data.batches import PairedBatch, collate
from knowundo.data.encoded import Encoded
from knowundo.errors import KnowUndoError
from knowundo.modeling.forward import Forward
from knowundo.modeling.model import Model
from knowundo.modeling.reference import Reference
from knowundo.modeling.step import Step, halves_of

Rows = dict[str, list[Encoded]]


def never() -> Reference:
    raise AssertionError("nobody asked for the reference")


def step(model: Model, rows: Rows, **more: Any) -> Step:
    halves = [collate(rows[scope], model.pad) for scope in ("unlearn", "retention")]
    return Step(Forward(model), PairedBatch(*halves), reference=never, **more)


def others(rows: Rows) -> dict[str, dict[str, Encoded]]:
    """Rows of other scopes as alternatives of the unlearn rows, in the order of these."""
    pairs = zip(rows["unlearn"], reversed(rows["general"]), strict=True)
    return {"alternative": {row.record.id: other for row, other in pairs}}


def test_only_what_is_read_is_computed(toy: Model, toy_rows: Rows) -> None:
    made = step(toy, toy_rows)
    assert made.used == set()
    assert made.unlearn is made.unlearn
    assert made.used == set()
    assert made.unlearn.states is made.unlearn.states
    assert made.used == {"unlearn"}
    assert made.retention.layer(0) is made.retention.layer(0)
    assert made.used == {"unlearn", "retention.layer"}
    assert halves_of(made.used) == {"unlearn", "retention"}


def test_a_joint_forward_gives_each_half_its_own_numbers(toy: Model, toy_rows: Rows) -> None:
    apart = step(toy, toy_rows, columns=others(toy_rows))
    read = ("unlearn", "retention", "alternative")
    joint = step(toy, toy_rows, columns=others(toy_rows), read=read)
    for name in read:
        one, other = getattr(apart, name), getattr(joint, name)
        torch.testing.assert_close(one.mean_nll, other.mean_nll, rtol=1e-9, atol=1e-12)
        assert len(one.mean_nll) == len(toy_rows["unlearn"])


def test_alternatives_come_in_the_order_of_the_unlearn_rows(toy: Model, toy_rows: Rows) -> None:
    made = step(toy, toy_rows, columns=others(toy_rows))
    wanted = [row.record.id for row in reversed(toy_rows["general"])]
    assert [row.record.id for row in made.alternative.batch.encoded] == wanted


def test_a_method_without_that_column_has_no_alternative(toy: Model, toy_rows: Rows) -> None:
    with pytest.raises(KnowUndoError, match="made no such column"):
        _ = step(toy, toy_rows).alternative


def test_the_reference_has_to_be_read_in_the_first_step(toy: Model, toy_rows: Rows) -> None:
    """Later the weights have moved: rows that are not held yet would be those of another model."""
    empty = Reference.of(toy, toy_rows["unlearn"])
    halves = [collate(toy_rows[scope], toy.pad) for scope in ("unlearn", "retention")]
    later = Step(Forward(toy), PairedBatch(*halves), reference=lambda: empty, read={"unlearn"})
    with pytest.raises(KnowUndoError, match="must read it in its first step"):
        _ = later.reference.unlearn
    first = Step(Forward(toy), PairedBatch(*halves), reference=lambda: empty)
    memorized = first.reference.unlearn.mean_nll
    torch.testing.assert_close(memorized, first.unlearn.mean_nll.detach(), rtol=1e-9, atol=1e-12)
