"""How well scores rank planted tensors: area under the ROC curve, and average precision."""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np

from knowundo.localization.choosing import kind_of


def auc(scores: np.ndarray, planted: np.ndarray) -> float:
    """Chance that a planted tensor scores higher than another; a tie counts half.

    Args:
        scores: [tensors].
        planted: [tensors], booleans of both values.
    """
    inside, outside = scores[planted], scores[~planted]
    higher = (inside[:, None] > outside[None]).mean()
    ties = (inside[:, None] == outside[None]).mean()
    return float(higher + ties / 2)


def average_precision(scores: np.ndarray, planted: np.ndarray) -> float:
    """Precision at each recall that a threshold reaches, weighted by the recall gained there.

    Tensors of equal scores are taken together.

    Args:
        scores: [tensors].
        planted: [tensors], booleans of both values.
    """
    total, before = 0.0, 0
    for threshold in np.unique(scores)[::-1]:
        taken = scores >= threshold
        hits = int(planted[taken].sum())
        total += (hits - before) / planted.sum() * hits / taken.sum()
        before = hits
    return total


def ranked(scores: Mapping[str, float]) -> dict[str, float]:
    """Each tensor's rank among those of its kind, in [0, 1]; equal scores have equal ranks.

    The rule that makes a region of scores compares within kinds too.

    Args:
        scores: By parameter name.
    """
    found = {}
    for name, score in scores.items():
        kind = np.array([value for n, value in scores.items() if kind_of(n) == kind_of(name)])
        found[name] = float((kind < score).mean() + (kind == score).mean() / 2)
    return found


def judged(scores: Mapping[str, float], planted: Set[str]) -> dict[str, float]:
    """AUC and average precision of a localizer's scores.

    Args:
        scores: By parameter name.
        planted: Names of the parameters that learned the unlearn scope.
    """
    ranks = ranked(scores)
    values = np.array(list(ranks.values()))
    truth = np.array([name in planted for name in ranks])
    return {"auc": auc(values, truth), "average_precision": average_precision(values, truth)}
