"""Trainings of a method whose gradient is not finite below a loss."""

from __future__ import annotations

from typing import Any

import torch

from knowundo.storage.job import Job
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import Unlearned, unlearn

Weights = dict[str, torch.Tensor]


def descend(
    start: Start, below: float = 0.0, **changed: Any
) -> tuple[Unlearned, dict[int, Weights]]:
    """Six steps of the steep method, and the weights after each of the first training."""
    settings: dict[str, Any] = {"lr": 1e-2, "epochs": 6, "batch_size": 5, "accumulation": 1}
    rule, states = changed.pop("rule", None), dict[int, Weights]()

    def note(step: int, _: int) -> None:
        states.setdefault(step, start.model.state())

    done = unlearn(
        start,
        UnlearnSettings("steep", arguments={"below": below}, **settings | changed),
        rule=rule,
        job=Job(progress=note),
    )
    return done, states


def between(done: Unlearned, step: int) -> float:
    """A number that the loss first falls below in a step."""
    losses = [row["parts"]["unlearn"] for row in done.curve]
    assert losses == sorted(losses, reverse=True)
    return (losses[step - 2] + losses[step - 1]) / 2


def same(first: Weights, second: Weights) -> bool:
    return all(torch.equal(first[name], value) for name, value in second.items())
