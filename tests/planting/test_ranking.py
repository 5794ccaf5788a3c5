"""AUC and average precision, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from knowundo.planting.ranking import auc, average_precision, judged, ranked


def test_auc_counts_pairs() -> None:
    scores = np.array([3.0, 1.0, 2.0, 2.0, 0.0])
    planted = np.array([True, False, True, False, False])
    # Pairs: 3 above all three; 2 above 1 and 0, equal to 2.
    assert auc(scores, planted) == pytest.approx((3 + 2.5) / 6)
    assert auc(scores, ~planted) == pytest.approx(0.5 / 6)
    assert auc(np.zeros(5), planted) == 0.5


def test_average_precision_takes_ties_together() -> None:
    scores = np.array([3.0, 1.0, 2.0, 2.0, 0.0])
    planted = np.array([True, False, True, False, False])
    assert average_precision(scores, planted) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert average_precision(np.zeros(5), planted) == pytest.approx(2 / 5)


def test_a_and_b_are_ranked_apart() -> None:
    scores = {"x.lora_A.w": 1.0, "y.lora_A.w": 2.0, "x.lora_B.w": 200.0, "y.lora_B.w": 100.0}
    assert ranked(scores) == {
        "x.lora_A.w": 0.25, "y.lora_A.w": 0.75, "x.lora_B.w": 0.75, "y.lora_B.w": 0.25,
    }  # fmt: skip
    assert judged(scores, {"y.lora_A.w", "x.lora_B.w"}) == {"auc": 1.0, "average_precision": 1.0}
