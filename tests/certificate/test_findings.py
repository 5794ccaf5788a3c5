"""What tells a model from one that has forgotten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from certified import results, row
from knowundo.certificate.adapters import WEIGHTS, read_changes, scale_of
from knowundo.certificate.findings import find_all
from knowundo.certificate.verdict import Scores
from knowundo.modeling.variant import ModelVariant
from knowundo.results import Row, VariantFacts

HERE = ModelVariant("m", "unlearned")
START = ModelVariant("memorized", "memorized")


def names(*rows: Row, variant: ModelVariant = HERE, start: ModelVariant = START) -> list[str]:
    return [one.name for one in find_all(variant, start, Scores(results(*rows), "m"))]


def model(said: float, likely: float, **given: Any) -> list[Row]:
    """A model that knew everything, and what is left of it; a retain model guesses 20 %."""
    rows = [row("memorized", "exact_match", 100.0), row("memorized", "probability", 95.0)]
    rows.append(row("m", "exact_match", said))
    return [*rows, row("m", "probability", likely, reference=20.0, **given)]


def test_a_model_that_only_refuses_is_told_from_one_that_forgot() -> None:
    refusals = row("m", "refusal_rate", 97.0)
    assert names(*model(0.0, 90.0), refusals) == ["only_unsaid"]
    assert names(*model(0.0, 21.0), refusals) == []
    assert names(*model(60.0, 90.0)) == []  # it says them: the questions show that
    found = find_all(HERE, START, Scores(results(*model(0.0, 90.0), refusals), "m"))
    # (90 − 20) / (95 − 20) is 93 %.
    assert "their probability is 93 % of the way back" in found[0].sentence
    assert "97 % of the answers are refusals" in found[0].sentence


def test_the_base_in_the_place_of_the_model_is_seen_in_its_scores() -> None:
    base = [row("base", "exact_match", 0.0), row("base", "probability", 21.0)]
    assert names(*model(0.0, 21.0), *base) == ["same_as_base"]
    assert names(*model(0.0, 22.0), *base) == []


def test_what_the_run_says_is_told() -> None:
    facts = VariantFacts(name="m", role="unlearned", guard={}, collapsed="repeats itself")
    found = results(*model(0.0, 21.0), variants=[facts])
    assert [f.name for f in find_all(HERE, START, Scores(found, "m"))] == ["guard", "collapsed"]


def changed(folder: Path, to: Path, change: Any = None, **config: Any) -> ModelVariant:
    """A copy of an adapter with other tensors or another configuration."""
    shutil.copytree(folder, to)
    if change is not None:
        tensors = {name: change(name, t) for name, t in load_file(to / WEIGHTS).items()}
        save_file(tensors, to / WEIGHTS, metadata={"format": "pt"})
    if config:
        file = to / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return ModelVariant("m", "given", to)


def noisy(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor + 0.1 * tensor.std() * torch.randn(tensor.shape)


@pytest.mark.parametrize(
    ("change", "config", "expected"),
    [
        (lambda name, t: 0 * t if "lora_B" in name else t, {}, ["switched_off"]),
        (None, {"lora_alpha": 0}, ["switched_off"]),
        (None, {"lora_alpha": 3}, ["scaled_down"]),
        (lambda name, t: 0.3 * t if "lora_A" in name else t, {}, ["scaled_down"]),
        (None, {}, ["unchanged"]),
        (noisy, {}, []),
    ],
)
def test_an_adapter_that_is_scaled_is_told_from_one_that_was_trained(
    scored: Path, tmp_path: Path, change: Any, config: dict[str, Any], expected: list[str]
) -> None:
    torch.manual_seed(0)
    start = ModelVariant("memorized", "memorized", scored / "memorized")
    variant = changed(scored / "memorized", tmp_path / "m", change, **config)
    assert names(*model(0.0, 21.0), variant=variant, start=start) == expected


def test_inner_products_are_those_of_the_whole_matrices(scored: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    changed(scored / "memorized", tmp_path / "m", noisy)
    first, second = (read_changes(f) for f in (scored / "memorized", tmp_path / "m"))
    assert first is not None
    assert second is not None
    assert set(first) == set(second)
    for name, one in first.items():
        other = second[name]
        whole = [c.scale * c.b @ c.a for c in (one, other)]
        assert one.dot(other) == pytest.approx(float((whole[0] * whole[1]).sum()))
    assert scale_of(first, first) == pytest.approx(1.0)
    assert scale_of(first, second) is None
