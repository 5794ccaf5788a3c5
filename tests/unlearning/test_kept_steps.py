"""Weights that are kept at intermediate steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from knowundo.data.encoded import Encoded
from knowundo.modeling.model import Model
from knowundo.storage.job import Job
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn
from plugin_methods import STEEP, install
from unlearning.descents import between, descend


@pytest.fixture
def steep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(STEEP, tmp_path, monkeypatch)


def test_steps_on_the_way_are_kept(toy: Model, toy_rows: dict[str, list[Encoded]]) -> None:
    """What is kept after step 2 is what training was after it, to the bit."""
    settings: dict[str, Any] = {"method": "gradient_ascent", "lr": 1e-3, "accumulation": 1}
    start = Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)
    states = dict[int, dict[str, torch.Tensor]]()

    def note(step: int, _: int) -> None:
        states[step] = toy.state()

    done = unlearn(
        start,
        UnlearnSettings(epochs=2, batch_size=2, keep_every=2, **settings),
        job=Job(progress=note),
    )
    assert sorted(states) == [1, 2, 3, 4, 5, 6]
    assert [one.step for one in done.kept] == [2, 4]  # the sixth is the end itself
    for one in done.kept:
        assert all(torch.equal(value, states[one.step][n]) for n, value in one.state.items())
        assert set(one.state) == set(states[one.step])
    end = toy.state()
    assert all(torch.equal(value, states[6][name]) for name, value in end.items())
    assert unlearn(start, UnlearnSettings(epochs=2, batch_size=2, **settings)).kept == []
    assert all(torch.equal(value, toy.state()[name]) for name, value in end.items())


@pytest.mark.usefixtures("steep")
def test_after_divergence_only_good_steps_are_kept(
    toy: Model, toy_rows: dict[str, list[Encoded]]
) -> None:
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    whole, _ = descend(start)
    done, _ = descend(start, below=between(whole, 4), keep_every=1)
    assert done.facts["kept_step"] == 2
    assert [one.step for one in done.kept] == [1, 2]
