"""The rule of `lr: auto`, and searches of a rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from knowundo.data.encoded import Encoded
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.model import Model
from knowundo.unlearning import rates
from knowundo.unlearning.early_stopping import StoppingRule
from knowundo.unlearning.rates import (
    NEAR,
    choose_rate,
    first_rate,
    unlearn_at_chosen_rate,
    unlearn_with_early_stopping,
)
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import Unlearned
from plugin_methods import BLOWS_UP, install


def falling(half: float, steepness: float = 3.0) -> tuple[list[float], object]:
    """Accuracy falls from 1 to 0 around the rate `half`; remembers what was tried."""
    tried: list[float] = []

    def attempt(rate: float) -> float:
        tried.append(rate)
        return 1 / (1 + (rate / half) ** steepness)

    return tried, attempt


@pytest.mark.parametrize("half", [5e-4, 1e-3, 3e-3, 1.5e-2])
def test_rate_comes_near_the_target(half: float) -> None:
    tried, attempt = falling(half)
    rate = choose_rate(attempt, 0.6)  # type: ignore[arg-type]
    assert len(tried) <= 5
    assert len(set(tried)) == len(tried)
    off = [abs(1 / (1 + (r / half) ** 3.0) - 0.6) for r in tried]
    assert off[tried.index(rate)] == min(off) <= NEAR


def test_good_guess_saves_attempts() -> None:
    tried, attempt = falling(8e-3)
    assert choose_rate(attempt, 0.5, guess=8e-3) == 8e-3  # type: ignore[arg-type]
    assert tried == [2e-3, 8e-3]


def test_divergence_moves_the_search_down() -> None:
    tried: list[float] = []

    def attempt(rate: float) -> float:
        tried.append(rate)
        return math.inf if rate > 1e-3 else 0.6

    assert choose_rate(attempt, 0.6) < 1e-3
    assert tried[0] > 1e-3


@pytest.fixture
def blows_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(BLOWS_UP, tmp_path / "plugins", monkeypatch)


@pytest.mark.usefixtures("blows_up")
def test_diverged_at_every_rate(toy: Model, toy_rows: dict[str, list[Encoded]]) -> None:
    start = Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 2, "accumulation": 1}
    done = unlearn_at_chosen_rate(start, 0.5, UnlearnSettings(method="blows_up", **settings))
    assert "the loss is no longer finite" in done.facts["diverged"]
    assert all(attempt["unlearn"] is None for attempt in done.facts["attempts"])
    assert not toy.net.training


class Attempts:
    """Stands for training: what each rate does to the list, to the rest, and to its answers."""

    def __init__(self, outcome: Callable[..., tuple[float, float, float]]) -> None:
        self.outcome, self.answered = outcome, 0.0
        self.reads_epochs = len(signature(outcome).parameters) > 1

    def train(self, start: Start, settings: UnlearnSettings, **_: Any) -> Unlearned:
        given = (settings.lr or 0.0, settings.epochs)[: 1 + self.reads_epochs]
        forgotten, lost, self.answered = self.outcome(*given)
        facts = {"unlearn": 1 - forgotten, "retention": 1 - lost / 100, "forgotten": forgotten}
        best = facts | {"lost": lost, "score": forgotten, "step": 1}
        return Unlearned([], {"lr": settings.lr, "best": best})

    def ask(self, *_: Any) -> float:
        return self.answered


def rates_tried(
    monkeypatch: pytest.MonkeyPatch,
    start: Start,
    outcome: Callable[..., tuple[float, float, float]],
    lr: float | None = 1e-3,
    minutes: float = math.inf,
    floor: float = 10.0,
) -> tuple[list[float], Unlearned]:
    """Rates that a search tries, and what is left."""
    attempts = Attempts(outcome)
    monkeypatch.setattr(rates, "unlearn", attempts.train)
    monkeypatch.setattr(rates, "percent_verbatim", attempts.ask)
    rule = StoppingRule([], [], 0.0, floor, 1, 1, minutes=minutes)
    done = unlearn_with_early_stopping(start, rule, UnlearnSettings("", 1, 1, 1, lr=lr))
    return [attempt["lr"] for attempt in done.facts["attempts"]], done


@pytest.fixture
def start(toy: Model, toy_rows: dict[str, list[Encoded]]) -> Start:
    return Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)


def test_a_rate_is_raised_until_enough_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    tried, done = rates_tried(monkeypatch, start, lambda lr: (min(lr / 0.02, 1.0), 0.0, 0.0))
    assert tried == [1e-3, 3e-3, 9e-3, 2.7e-2]
    assert done.facts["lr"] == 2.7e-2


def test_a_rate_is_raised_while_the_list_is_still_answered(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    tried, done = rates_tried(monkeypatch, start, lambda lr: (0.7, 0.0, 5.1 if lr < 9e-3 else 5.0))
    assert tried == [1e-3, 3e-3, 9e-3]
    assert done.facts["lr"] == 9e-3


def test_a_rate_is_lowered_when_too_much_is_lost(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    tried, done = rates_tried(monkeypatch, start, lambda lr: (1.0, 3e4 * lr, 0.0))
    assert tried == [1e-3, 3.3e-4, 1.1e-4, 3.7e-5]
    assert done.facts["lr"] == 3.7e-5  # within the floor, and at most a fifth of it is lost


def test_a_rate_that_does_both_is_lowered_while_its_loss_is_noticeable(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    def outcome(lr: float) -> tuple[float, float, float]:
        return (0.5 if lr < 1.5e-3 else 0.9), (1.0 if lr < 2e-3 else 5.0), 0.0

    tried, done = rates_tried(monkeypatch, start, outcome)
    assert tried == [1e-3, 3e-3, 1.7e-3]  # 5 of 10 points are lost at the second one
    assert done.facts["lr"] == 1.7e-3


def test_where_a_rate_does_too_little_and_too_much_lower_ones_get_more_epochs(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    def outcome(lr: float, epochs: int) -> tuple[float, float, float]:
        return min(150 * lr * epochs, 1.0), 0.0 if lr < 2e-3 else 20.0, 0.0

    _, done = rates_tried(monkeypatch, start, outcome)
    attempts = [(attempt["lr"], attempt["epochs"]) for attempt in done.facts["attempts"]]
    assert attempts == [(1e-3, 1), (3e-3, 1), (1e-3, 3), (1.7e-3, 3)]
    assert done.facts["lr"] == 1.7e-3


def test_a_loss_that_does_not_grow_with_the_rate_does_not_end_its_rise(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    """Two answers that anything would change are lost at every rate below one that does both."""
    tried, done = rates_tried(
        monkeypatch, start, lambda lr: (0.3, 13.0, 20.0) if lr < 5e-3 else (0.9, 1.0, 0.0)
    )
    assert tried == [1e-3, 3e-3, 9e-3]
    assert {attempt["epochs"] for attempt in done.facts["attempts"]} == {1}
    assert done.facts["lr"] == 9e-3


def test_where_no_loss_can_be_seen_the_gentlest_rate_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    outcome = lambda lr: (0.5 if lr < 5e-4 else 0.9, 1e4 * lr, 0.0)  # noqa: E731
    tried, done = rates_tried(monkeypatch, start, outcome, floor=math.inf)
    assert tried == [1e-3, 3.3e-4, 5.8e-4]
    assert done.facts["lr"] == 5.8e-4


def test_a_search_ends_when_its_time_is_used_up(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    clock = iter(range(0, 10_000, 60))  # a minute passes whenever the time is read
    monkeypatch.setattr(rates.time, "perf_counter", lambda: next(clock))
    tried, _ = rates_tried(monkeypatch, start, lambda _: (0.1, 0.0, 0.0), minutes=2.5)
    assert tried == [1e-3, 3e-3, 9e-3]


def test_between_too_little_and_too_much_the_search_bisects(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    def outcome(lr: float) -> tuple[float, float, float]:
        return (0.5 if lr < 1.5e-3 else 0.9), (0.0 if lr < 2e-3 else 20.0), 0.0

    tried, done = rates_tried(monkeypatch, start, outcome)
    assert tried == [1e-3, 3e-3, 1.7e-3]
    assert done.facts["lr"] == 1.7e-3


def test_where_no_rate_does_both_the_list_is_gone(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    """The search ends when its rates are close, and prefers a model without the list."""
    tried, done = rates_tried(
        monkeypatch, start, lambda lr: (0.5, 0.0, 0.0) if lr < 2e-3 else (0.9, 20.0, 0.0)
    )
    assert tried == [1e-3, 3e-3, 1.7e-3, 2.3e-3, 2e-3]
    assert done.facts["lr"] == 3e-3  # the first of three with the same score


@pytest.mark.usefixtures("blows_up")
def test_where_training_diverges_the_rate_is_lowered(start: Start) -> None:
    settings = UnlearnSettings("blows_up", 2, 2, 1, lr=1e-3)
    rule = StoppingRule(start.unlearn_rows, start.retention_rows["retention"], 0.0, 10.0, 1, 1)
    done = unlearn_with_early_stopping(start, rule, settings, attempts=2)
    assert [attempt["lr"] for attempt in done.facts["attempts"]] == [1e-3, 3.3e-4]
    assert "diverged" in done.facts


def test_the_first_rate_is_a_gentle_one(monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    tried, _ = rates_tried(monkeypatch, start, lambda _: (1.0, 0.0, 0.0), lr=None)
    assert tried == [pytest.approx(first_rate(start.model) / 10, rel=0.05)]


def test_first_rate_follows_the_width(toy: Model, toy_base: str) -> None:
    assert first_rate(toy) == pytest.approx(5e-4 * (2000 / 24) ** 0.781, rel=0.05)
    full = Model(toy_base, Adaptation("full"))
    assert first_rate(full) == pytest.approx(5e-5 * (2000 / 24) ** 0.781, rel=0.05)
