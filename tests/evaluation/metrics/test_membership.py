"""Membership attacks on cases computed by hand."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
import torch

from knowundo.data.encoded import Encoded
from knowundo.data.records import Record
from knowundo.evaluation.groups import Scores, Unmeasured
from knowundo.evaluation.metrics.membership import auc, found
from knowundo.registry import get
from knowundo.scoring.seen import Tokens


def scores(**columns: list[float]) -> Scores:
    return Scores({name: np.array(values) for name, values in columns.items()})


def test_auc_counts_pairs() -> None:
    """Of 3 × 2 pairs the member is above in 4, and equal in 1: 4.5 of 6."""
    members, others = np.array([3.0, 2.0, 1.0]), np.array([2.0, 0.0])
    pairs = [(m > o) + (m == o) / 2 for m in members for o in others]
    assert sum(pairs) == 4.5
    assert auc(members, others) == pytest.approx(75)
    assert auc(others, others) == 50


def test_members_found_at_one_percent() -> None:
    """Of 200 others 2 may be above: members must exceed the third largest. Of 30, none may."""
    others = np.arange(200.0)
    assert found(np.array([197.0, 197.5, 250.0, 3.0]), others) == 50
    assert found(np.array([29.0, 29.5]), np.arange(30.0)) == 50


def seen(probabilities: list[list[float]]) -> Tokens:
    """Answer tokens 0, 0, … with these distributions over two tokens, and an end."""
    ids = (1, *[0] * len(probabilities), 1)
    row = Encoded(Record("a", "Who?", "Ada lives", "unlearn", "train"), ids, 1, (False,) * len(ids))
    right = [first > second for first, second in probabilities]
    log_probs = torch.tensor([*probabilities, [0.5, 0.5]], dtype=torch.float64).log()
    return Tokens(row, log_probs, right)


def test_the_lowest_forty_percent() -> None:
    """Of five tokens two: log 0.2 and log 0.4."""
    tokens = seen([[p, 1 - p] for p in (0.9, 0.2, 0.6, 0.4, 0.8)])
    lowest = (math.log(0.2) + math.log(0.4)) / 2
    assert get("scorer", "lowest_log_probs")(tokens) == pytest.approx(lowest)
    single = seen([[0.5, 0.5]])  # σ is 0, and at least 1e-3
    assert get("scorer", "lowest_log_probs")(single) == pytest.approx(math.log(0.5))
    assert get("scorer", "lowest_surprise")(single) == pytest.approx(0, abs=1e-4)
    assert get("scorer", "lowest_log_probs")(seen([])) is None


def test_surprise_of_two_tokens() -> None:
    """p = 1/4: μ = Σ p log p, σ² = Σ p log² p − μ², so (log p − μ)/σ = −√(3/4 · 4) = −√3."""
    assert get("scorer", "lowest_surprise")(seen([[0.25, 0.75]])) == pytest.approx(-math.sqrt(3))
    certain = seen([[1.0, 0.0]])  # log 0 is not finite, and has no part in μ
    assert get("scorer", "lowest_surprise")(certain) == pytest.approx(0, abs=1e-4)


def test_likelihood_by_compressed_length() -> None:
    size = len(zlib.compress(b"Ada lives"))
    tokens = seen([[0.5, 0.5], [0.25, 0.75]])
    expected = (math.log(2) + math.log(4)) / 2 / size
    assert get("scorer", "nll_by_zlib")(tokens) == pytest.approx(expected)
    assert get("scorer", "nll_by_zlib")(seen([])) is None


@pytest.mark.parametrize(
    ("name", "column", "sign"),
    [
        ("loss_auc", "mean_nll", -1),
        ("zlib_auc", "nll_by_zlib", -1),
        ("min_k_auc", "lowest_log_probs", 1),
        ("min_k_plus_plus_auc", "lowest_surprise", 1),
    ],
)
def test_known_members_are_told(name: str, column: str, sign: int) -> None:
    """Members score 2 and 3, others 1, 2 and 0: 5.5 of 6 pairs; one of two exceeds all others."""
    members, others = scores(**{column: [sign * 2.0, sign * 3.0]}), [1.0, 2.0, 0.0]
    rest = scores(**{column: [sign * value for value in others]})
    assert get("metric", name)(members, rest) == pytest.approx(100 * 5.5 / 6)
    assert get("metric", name.replace("auc", "tpr"))(members, rest) == pytest.approx(50)


def test_likelihood_against_the_retain_model() -> None:
    """Rows are paired; one that the retain model does not measure is left out, with its partner.

    Members became likelier by 2 and 0, others by 1 and −1: in 3 of 4 pairs the member is above.
    """
    own = scores(mean_nll=[1.0, 9.0, 3.0]), scores(mean_nll=[2.0, 2.0])
    retain = scores(mean_nll=[3.0, np.nan, 3.0]), scores(mean_nll=[3.0, 1.0])
    assert get("metric", "reference_auc")(*own, reference=retain) == pytest.approx(75)
    assert get("metric", "reference_tpr")(*own, reference=retain) == pytest.approx(50)
    with pytest.raises(Unmeasured):
        get("metric", "reference_auc")(*own)


def test_privleak_has_the_sign_of_muse() -> None:
    """The retain model's AUC is 1/2. Every member told: −100; none, and all others: +100."""
    leak = get("metric", "privleak")
    low, high = scores(lowest_log_probs=[-3.0, -2.0]), scores(lowest_log_probs=[-1.0, -0.5])
    even = (low, low)
    assert leak(high, low, reference=even) == pytest.approx(-100)
    assert leak(low, high, reference=even) == pytest.approx(100)
    assert leak(low, low, reference=even) == pytest.approx(0)
    with pytest.raises(Unmeasured):
        leak(low, high, reference=(high, low))
    with pytest.raises(Unmeasured):
        leak(low, high)
