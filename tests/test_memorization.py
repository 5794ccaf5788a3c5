"""Memorizing: when it stops, and what it says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from knowundo.data.encoded import Encoded
from knowundo.memorization import MemorizeSettings, memorize
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.model import Model
from knowundo.scoring.teacher_forcing import token_accuracy
from knowundo.storage.job import Job

Rows = dict[str, list[Encoded]]


def settings(**changed: Any) -> MemorizeSettings:
    given: dict[str, Any] = {"epochs": 60, "lr": 3e-2, "batch_size": 3, "accumulation": 2}
    return MemorizeSettings(**given | {"weight_decay": 0.0, "known": None, "seed": 0} | changed)


def test_it_stops_once_enough_rows_are_known(toy_base: str, toy_rows: Rows) -> None:
    toy = Model(toy_base, Adaptation("full"))
    seen: list[tuple[int, int]] = []
    job = Job(progress=lambda done, total: seen.append((done, total)))
    rows = toy_rows["unlearn"][:2]
    curve, facts = memorize(
        toy, rows, settings=settings(known=1.0, accumulation=1, lr=1e-2), job=job
    )
    assert facts["stopped_early"]
    assert facts["known_share"] == 1.0
    assert len(curve) == facts["optimizer_steps"] == seen[-1][0] < seen[-1][1] == 60
    assert facts["rows_seen"] == 2 * len(curve)
    assert token_accuracy(toy, rows) > 0.9
    assert not toy.net.training


def test_without_a_share_all_epochs_are_trained(toy: Model, toy_rows: Rows) -> None:
    rows, general = toy_rows["unlearn"], toy_rows["general"]
    curve, facts = memorize(toy, rows, general, settings=settings(epochs=2))
    assert not facts["stopped_early"]
    assert facts["rows_seen"] == 2 * (len(rows) + len(general))
    batches = 2 * 4  # ten rows, three at a time
    assert len(curve) == batches / 2
    assert all(set(row["parts"]) == {"memorize"} for row in curve)


def test_settings_reach_the_training_loop() -> None:
    given = settings(schedule="linear", warmup=0.5, weight_decay=0.1, optimizer="adamw")
    training = given.training()
    assert (training.lr, training.seed, training.accumulation) == (3e-2, 0, 2)
    assert (training.schedule, training.warmup, training.weight_decay) == ("linear", 0.5, 0.1)
    with pytest.raises(AttributeError):
        given.lr = 1.0  # type: ignore[misc]
