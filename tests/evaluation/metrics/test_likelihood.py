"""Likelihood of the true answer, computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from knowundo.evaluation.groups import Scores
from knowundo.registry import get


def test_likelihoods() -> None:
    scores = Scores({"mean_nll": np.array([0.0, math.log(4)])})
    assert get("metric", "probability")(scores) == pytest.approx(100 * (1 + 1 / 4) / 2)
    assert get("metric", "perplexity")(scores) == pytest.approx(2)


def test_perplexity_stays_a_number() -> None:
    assert math.isfinite(get("metric", "perplexity")(Scores({"mean_nll": np.array([1e6])})))
