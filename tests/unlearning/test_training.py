"""What unlearning leaves, where training diverges and where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from knowundo.data.encoded import Encoded
from knowundo.modeling.model import Model
from knowundo.unlearning.early_stopping import StoppingRule
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn
from plugin_methods import STEEP, install
from unlearning.descents import between, descend, same


@pytest.fixture
def steep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(STEEP, tmp_path, monkeypatch)


@pytest.mark.usefixtures("steep")
def test_of_a_training_that_diverges_the_best_evaluation_step_stays(
    toy: Model, toy_rows: dict[str, list[Encoded]]
) -> None:
    start = Start(toy, toy_rows["unlearn"], toy_rows, seed=0)
    rule = StoppingRule(toy_rows["unlearn"], toy_rows["retention"], -1.0, 50.0, 6, 99)
    whole, states = descend(start)
    done, _ = descend(start, below=between(whole, 5), rule=rule)
    assert "diverged" in done.facts
    assert [one["step"] for one in done.facts["trajectory"]] == [0, 1, 2, 3, 4]
    best = done.facts["best"]["step"]
    assert done.facts["kept_step"] == best
    assert same(toy.state(), states[best])


Rows = dict[str, list[Encoded]]


@pytest.mark.parametrize(
    "method",
    ["gradient_ascent", "random_label", "adversarial_sample", "ascent_plus_kl_divergence"],
)
def test_outside_the_region_no_bit_moves(toy: Model, toy_rows: Rows, method: str) -> None:
    before = {name: p.detach().clone() for name, p in toy.net.named_parameters()}
    region = sorted(toy.parameters())[::3]
    start = Start(toy, toy_rows["unlearn"], {"retention": toy_rows["retention"]}, seed=0)
    unlearn(
        start,
        UnlearnSettings(
            method=method, region=region, lr=1e-2, epochs=2, batch_size=2, accumulation=1
        ),
    )
    moved = {
        name for name, p in toy.net.named_parameters() if not torch.equal(p.detach(), before[name])
    }
    assert moved == set(region)
