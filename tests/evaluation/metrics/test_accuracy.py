"""Teacher-forced accuracy, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from knowundo.evaluation.groups import Scores
from knowundo.registry import get


def test_accuracies_are_means_over_records() -> None:
    scores = Scores(
        {"token_accuracy": np.array([1.0, 0.5]), "fact_accuracy": np.array([np.nan, 0.25])}
    )
    assert get("metric", "token_accuracy")(scores) == pytest.approx(75)
    assert scores.unmeasured() == 0
    assert get("metric", "fact_accuracy")(scores) == pytest.approx(25)
    assert scores.unmeasured() == 1
