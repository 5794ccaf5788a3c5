"""Layers by hand."""

from __future__ import annotations

import pytest

from knowundo.errors import BadInput
from knowundo.localization.gradients import Measured
from knowundo.registry import get

NAMES = [f"model.layers.{n}.{part}_proj.weight" for n in range(4) for part in ("q", "up")]
MEASURED = Measured(dict.fromkeys([*NAMES, "model.norm.weight"], 0.0), {})


def test_named_layers_and_modules() -> None:
    layers = get("localizer", "layers")
    assert layers(MEASURED) == set(NAMES[4:])
    assert layers(MEASURED, numbers=[0], modules=["up_proj"]) == {NAMES[1]}


def test_nothing_there_is_an_error() -> None:
    with pytest.raises(BadInput, match=r"layers \[0, 1, 2, 3\] and modules norm, q_proj, up_proj"):
        get("localizer", "layers")(MEASURED, numbers=[4])
