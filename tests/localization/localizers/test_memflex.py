"""MemFlex's rule, on a planted case."""

from __future__ import annotations

import pytest
import torch

from knowundo.errors import BadInput
from knowundo.localization.gradients import Gradients, Measured
from knowundo.registry import get


def planted() -> Measured:
    """Four tensors: only `b` has a large unlearn gradient that points away from retention's."""
    one = torch.tensor([1.0, 1.0])
    return Gradients(
        unlearn={"a": one, "b": one, "c": 0.01 * one, "d": 0.01 * one},
        retention={"a": one, "b": -one, "c": one, "d": -one},
    ).measured()


def test_planted_case_yields_the_known_region() -> None:
    memflex = get("localizer", "memflex")
    assert memflex(planted(), **memflex.bind({"mu": 0.9, "sigma": 0.1})) == {"b"}
    assert planted().cosine("a") == pytest.approx(1)
    assert planted().cosine("b") == pytest.approx(-1)
    assert planted().magnitude("c") == pytest.approx(0.01)


def test_thresholds_that_nothing_passes_are_an_error() -> None:
    with pytest.raises(BadInput, match="raise mu or lower sigma"):
        get("localizer", "memflex")(planted(), mu=-2.0, sigma=0.1)
