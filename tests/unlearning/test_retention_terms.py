"""Terms on the retention rows: what is weighted by 0 is not computed."""

from __future__ import annotations

import pytest
import torch

from knowundo.data.batches import PairedBatch, collate
from knowundo.data.encoded import Encoded
from knowundo.modeling.forward import Forward
from knowundo.modeling.model import Model
from knowundo.modeling.step import Step
from knowundo.unlearning.retention_terms import divergence_from_memorized, retention_part
from knowundo.unlearning.start import Start

Rows = dict[str, list[Encoded]]


@pytest.fixture
def step(toy: Model, toy_rows: Rows) -> Step:
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    halves = [collate(toy_rows[scope], toy.pad) for scope in ("unlearn", "retention")]
    return Step(Forward(toy), PairedBatch(*halves), reference=lambda: start.reference)


def test_without_weights_there_is_no_part_and_no_forward(step: Step) -> None:
    assert retention_part(step, 0.0, 0.0) == {}
    assert step.used == set()


def test_terms_are_weighted_and_summed(step: Step) -> None:
    with torch.no_grad():
        cross_entropy = step.retention.mean(step.retention.mean_nll)
        divergence = step.retention.mean(divergence_from_memorized(step))
        part = retention_part(step, 2.0, 3.0)["retention"]
    torch.testing.assert_close(part, 2 * cross_entropy + 3 * divergence)
    assert float(divergence) == pytest.approx(0, abs=1e-9)  # nothing has moved yet
