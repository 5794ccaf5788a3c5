"""How likely the true answer is to the model."""

from __future__ import annotations

import numpy as np

from knowundo.evaluation.groups import Scores
from knowundo.registry import metric


@metric(higher_is="remembered")
def probability(scores: Scores) -> float:
    """P(answer | question)^(1/tokens), mean over records (TOFU, arXiv:2401.06121)."""
    return 100 * float(np.exp(-scores["mean_nll"]).mean())


@metric(higher_is="forgotten", unit="ratio")
def perplexity(scores: Scores) -> float:
    """Exponential of the mean over records of the NLL per answer token, at most e^700."""
    return float(np.exp(min(scores["mean_nll"].mean(), 700.0)))
