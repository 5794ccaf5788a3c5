"""LUME's aggregates, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from knowundo.data.records import Record
from knowundo.evaluation.groups import Scores
from knowundo.evaluation.metrics.lume import GROUPS, final_score
from knowundo.registry import get
from knowundo.scoring.seen import Generated


def test_exact_but_for_case_and_white_space() -> None:
    exact = get("scorer", "lume_exact")
    record = Record("x", "Where?", "The Old Oak Pub.", "unlearn", "train")
    assert exact(Generated(record, " the old oak pub. \n")) == 1
    assert exact(Generated(record, "The Old Oak Pub")) == 0


def test_harmonic_mean_of_twelve() -> None:
    """Texts have ROUGE-L 0.6, answers 0.5; of the rows that must go, 1 − v counts."""

    def group(rouge: float, exact: float) -> Scores:
        nan = [np.nan, np.nan]
        one, other = np.array([rouge - 0.1, rouge + 0.1]), np.array([0.0, 2 * exact])
        return Scores({"rouge_l": one if exact == 0 else np.array(nan), "lume_exact": other})

    groups = [group(0.6, 0) if name.endswith("sc") else group(0, 0.5) for name in GROUPS]
    aggregate = get("metric", "lume_task_aggregate")
    assert len(GROUPS) == len(set(GROUPS)) == 12
    twelve = [0.4, 0.5] * 3 + [0.6, 0.5] * 3
    assert aggregate(*groups) == pytest.approx(12 / sum(1 / value for value in twelve))
    known = [group(1.0, 0) if name == "unlearn/train/pii sc" else one
             for name, one in zip(GROUPS, groups, strict=True)]  # fmt: skip
    assert aggregate(*known) == 0


def test_final_score_is_the_mean_of_three() -> None:
    assert final_score(0.6, 0.5, 0.48) == pytest.approx((0.6 + 1.0 + 0.48) / 3)
    # Members that can be told cost as much as those that look unseen all too much.
    assert final_score(0.6, 0.9, 0.3) == pytest.approx((0.6 + 0.2 + 0.3) / 3)
    assert final_score(0.6, 0.1, 0.3) == pytest.approx(final_score(0.6, 0.9, 0.3))
