"""The model that is trained further on the unlearn rows, of which only states are kept."""

from __future__ import annotations

import pytest
import torch

from conftest import naive_ce
from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput, KnowUndoError
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.head import live_head
from knowundo.modeling.loading import LoadingOptions
from knowundo.modeling.model import Model
from knowundo.unlearning.reinforced_model import reinforced_states
from knowundo.unlearning.reinforcement import reinforced
from knowundo.unlearning.scorer import Scorer
from knowundo.unlearning.start import Start

Rows = dict[str, list[Encoded]]


def nll(model: Model, row: Encoded, states: torch.Tensor) -> float:
    """Mean negative log-likelihood of an answer, by its states."""
    log_probs = live_head(model)(states).log_softmax(-1)
    labels = torch.tensor(row.ids[row.answer_from :])
    return -float(log_probs[torch.arange(len(labels)), labels].mean())


def test_the_rows_are_likelier_afterwards_and_nothing_else_has_changed(
    toy: Model, toy_rows: Rows
) -> None:
    rows, before = toy_rows["unlearn"], toy.state()
    start = Start(toy, rows, {}, seed=0)
    initial = toy.snapshots.nbytes()
    known = {row.record.id: naive_ce(toy, row).item() for row in rows}
    training = toy.net.training
    column = reinforced(rows, start.scorer(), epochs=5, rate=1e-2)["reinforced"]
    assert all(torch.equal(value, toy.state()[name]) for name, value in before.items())
    assert toy.snapshots.nbytes() == initial
    assert toy.net.training == training
    for row in rows:
        states = column[row.record.id]
        assert states.shape[0] == row.answer_length
        assert not states.requires_grad
        assert nll(toy, row, states) < known[row.record.id]
    _ = start.reference  # which refuses weights that have moved


def test_the_same_seed_gives_the_same_bits(toy: Model, toy_rows: Rows) -> None:
    start = Start(toy, toy_rows["unlearn"], {}, seed=3)
    one, two = (start.scorer().reinforced(toy_rows["unlearn"], epochs=2, lr=1e-2) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_model_whose_weights_are_all_trained_is_refused(toy_base: str, toy_rows: Rows) -> None:
    model = Model(toy_base, Adaptation("full"), options=LoadingOptions(dtype="float64"))
    with pytest.raises(BadInput, match=r"set model\.adaptation to lora"):
        reinforced_states(model, toy_rows["unlearn"], epochs=1, lr=1e-3, seed=0)


def test_without_a_way_back_nothing_is_trained(toy: Model, toy_rows: Rows) -> None:
    before = toy.state()
    with pytest.raises(KnowUndoError, match="restore"):
        Scorer(toy, 0).reinforced(toy_rows["unlearn"], epochs=1, lr=1e-3)
    assert all(torch.equal(value, toy.state()[name]) for name, value in before.items())
