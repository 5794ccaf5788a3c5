"""Relearning brings back what was only hidden."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attacks.attacking import Rows, Taught, accuracy, under_attack
from knowundo.attacked import Attacked
from knowundo.attacks.relearning import relearning
from knowundo.errors import BadInput
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.model import Model
from knowundo.storage.checkpoints import Checkpoint
from knowundo.storage.job import Job


def test_steps_are_those_of_one_training(toy: Model, toy_rows: Rows) -> None:
    """After 3 steps the model is what a training of 3 steps makes, though 5 are taken."""
    start = toy.state()
    both = under_attack(toy, toy_rows)
    relearning(both, steps=(0, 3, 5), count=2, batch_size=2)
    toy.restore(start)
    short = under_attack(toy, toy_rows)
    relearning(short, steps=(3,), count=2, batch_size=2)
    assert list(both.tables) == ["0 steps", "3 steps", "5 steps"]
    assert both.tables["3 steps"].equals(short.tables["3 steps"])
    assert not both.tables["3 steps"].equals(both.tables["5 steps"])


def test_rows_that_are_trained_on_are_not_scored(toy: Model, toy_rows: Rows) -> None:
    attacked = under_attack(toy, toy_rows)
    relearning(attacked, steps=(1,), count=2)
    table = attacked.tables["1 step"]
    unlearn = toy_rows["unlearn"]
    assert (table["scope"] == "unlearn").sum() == len(unlearn) - 2
    # Each scope of the toy rows has the same answers, and an answer that was told is no evidence.
    assert (table["scope"] == "retention").sum() == len(unlearn) - 2


def test_unrelated_rows(toy: Model, toy_rows: Rows) -> None:
    attacked = under_attack(toy, toy_rows)
    relearning(attacked, rows="general", steps=(1,), count=1)
    assert len(attacked.tables["1 step"]) == 8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 6}, "there are 5 unlearn/train rows"),
        ({"count": 5}, "no unlearn row is left"),
    ],
)
def test_too_many_rows_are_refused(toy: Model, toy_rows: Rows, given: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        relearning(under_attack(toy, toy_rows), steps=(1,), **given)


def test_no_rows_are_refused(toy: Model, toy_rows: Rows) -> None:
    attacked = under_attack(toy, toy_rows, train=toy_rows | {"general": []})
    with pytest.raises(BadInput, match="no general/train rows"):
        relearning(attacked, rows="general", steps=(1,))


def test_a_training_that_diverges_ends_there_and_says_so(toy: Model, toy_rows: Rows) -> None:
    attacked = under_attack(toy, toy_rows)
    relearning(attacked, steps=(0, 40), lr=1e30)
    assert list(attacked.tables) == ["0 steps"]
    assert any("diverged" in note for note in toy.notes.take())


class Killed(BaseException):
    """What nothing catches."""


@pytest.mark.parametrize("at", [7])
def test_killed_at_any_write_it_resumes_to_the_same_bits(
    toy_base: str,
    toy_rows: Rows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    def work(checkpoint: Checkpoint | None) -> Attacked:
        model = Model(toy_base, Adaptation("lora", 4, 8, dropout=0.2))
        attacked = under_attack(model, toy_rows, job=Job(checkpoint=checkpoint))
        relearning(attacked, steps=(1, 3), count=2, batch_size=2)
        return attacked

    whole = work(None)
    kill_at(monkeypatch, at)
    with pytest.raises(Killed):
        work(Checkpoint(tmp_path / "c", ["inputs"]))
    kill_at(monkeypatch, 10**9)
    torch.manual_seed(99)
    resumed = work(Checkpoint(tmp_path / "c", ["inputs"]))
    assert list(resumed.tables) == list(whole.tables)
    assert all(resumed.tables[name].equals(whole.tables[name]) for name in whole.tables)


WRITE: Callable[..., None] = Checkpoint.write


def kill_at(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Make every moment due for a checkpoint, and kill after so many writes."""
    written = 0

    def killing(checkpoint: Checkpoint, *args: object) -> None:
        nonlocal written
        WRITE(checkpoint, *args)
        written += 1
        if written == at:
            raise Killed

    monkeypatch.setattr("knowundo.storage.checkpoints.EVERY", 0.0)
    monkeypatch.setattr("knowundo.storage.checkpoints.SHARE", 1e9)
    monkeypatch.setattr(Checkpoint, "write", killing)


def test_a_list_that_was_only_hidden_returns(taught: Taught) -> None:
    """Of two models that know nothing of the list, one comes back: it had learned it before."""
    found, model = {}, taught.model
    for name, state in {"hidden": taught.hidden, "never": model.initial.tensors}.items():
        model.restore(state)
        attacked = under_attack(model, taught.rows)
        relearning(attacked, steps=(0, 20), count=2, lr=1e-3)
        found[name] = accuracy(attacked, "0 steps"), accuracy(attacked, "20 steps")
    assert found["hidden"][0] < 0.2
    assert found["hidden"][1] > 0.45  # of six rows that were not trained on
    assert found["never"][1] < 0.3
