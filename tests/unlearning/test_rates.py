"""The rule of `lr: auto`, and searches of a rate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from knowundo.data.encoded import Encoded
from knowundo.modeling.adapters import Adaptation
from knowundo.modeling.model import Model
from knowundo.unlearning.rates import (
    NEAR,
    choose_rate,
    first_rate,
    unlearn_at_chosen_rate,
    unlearn_with_early_stopping,
)
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from plugin_methods import BLOWS_UP, install
from unlearning.knowing import SETTINGS, begin, rule_of


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


def test_a_rate_is_raised_until_enough_is_forgotten(
    knowing: Model, toy_rows: dict[str, list[Encoded]]
) -> None:
    start = begin(knowing, toy_rows)
    done = unlearn_with_early_stopping(
        start, rule_of(toy_rows), UnlearnSettings(lr=1e-7, **SETTINGS), attempts=3
    )
    assert [attempt["lr"] for attempt in done.facts["attempts"]] == [1e-7, 3e-7, 9e-7]


def test_a_rate_is_lowered_when_too_much_is_lost(
    knowing: Model, toy_rows: dict[str, list[Encoded]]
) -> None:
    start = begin(knowing, toy_rows)
    settings = SETTINGS | {"method": "gradient_ascent"}
    rule = rule_of(toy_rows, floor=1e-3, patience=1)
    done = unlearn_with_early_stopping(start, rule, UnlearnSettings(lr=0.5, **settings), attempts=2)
    first, second = done.facts["attempts"]
    assert second["lr"] == pytest.approx(first["lr"] / 3, rel=0.05)


def test_first_rate_follows_the_width(toy: Model, toy_base: str) -> None:
    assert first_rate(toy) == pytest.approx(5e-4 * (2000 / 24) ** 0.781, rel=0.05)
    full = Model(toy_base, Adaptation("full"))
    assert first_rate(full) == pytest.approx(5e-5 * (2000 / 24) ** 0.781, rel=0.05)
