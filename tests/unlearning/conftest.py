"""A model to unlearn from."""

from __future__ import annotations

from typing import Any

import pytest

from knowundo.data.encoded import Encoded
from knowundo.memorization import MemorizeSettings, memorize
from knowundo.modeling.model import Model
from knowundo.unlearning import early_stopping as module


@pytest.fixture
def knowing(toy: Model, toy_rows: dict[str, list[Encoded]]) -> Model:
    """The toy model, after it learned something of its rows."""
    settings: dict[str, Any] = {"batch_size": 5, "accumulation": 1, "weight_decay": 0.0}
    rows = [*toy_rows["unlearn"], *toy_rows["retention"]]
    memorize(
        toy, rows, settings=MemorizeSettings(epochs=40, lr=3e-2, known=None, seed=0, **settings)
    )
    for scope in ("unlearn", "retention"):
        assert module.token_accuracy(toy, toy_rows[scope]) > 0.2
    return toy
