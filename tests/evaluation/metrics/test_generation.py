"""Metrics of generated answers, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from knowundo.evaluation.groups import Scores
from knowundo.registry import get


@pytest.mark.parametrize("name", ["exact_match", "rouge_l", "forced_rouge_l"])
def test_generation_metrics_are_means_over_records(name: str) -> None:
    scores = Scores({name: np.array([1.0, 0.5])})
    assert get("metric", name)(scores) == pytest.approx(75)
