"""The toy model after it learned something, and what unlearning it needs."""

from __future__ import annotations

from typing import Any

from knowundo.data.encoded import Encoded
from knowundo.modeling.model import Model
from knowundo.unlearning.early_stopping import StoppingRule
from knowundo.unlearning.start import Start

SETTINGS: dict[str, Any] = {
    "method": "ascent_plus_descent",
    "epochs": 6,
    "batch_size": 2,
    "accumulation": 1,
}


def rule_of(rows: dict[str, list[Encoded]], **changed: Any) -> StoppingRule:
    settings: dict[str, Any] = {"target": 0.0, "floor": 50.0, "evaluations": 6, "patience": 2}
    return StoppingRule(rows["unlearn"], rows["retention"], **settings | changed)


def begin(toy: Model, rows: dict[str, list[Encoded]]) -> Start:
    return Start(toy, rows["unlearn"], rows, seed=0)
