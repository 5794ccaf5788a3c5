"""Intervals resample subjects."""

from __future__ import annotations

import numpy as np
import pytest

from knowundo.evaluation.intervals import Resampling, interval


def test_interval_resamples_subjects() -> None:
    """Two subjects, A with rows 1, 1, 1 and B with one row 0.

    Drawn are AA (mean 1), AB or BA (mean 3/4) and BB (mean 0), with 1/4, 1/2 and 1/4. Resampling
    rows instead would almost never give 0.
    """
    resampling = Resampling(["A", "B"], draws=4000, seed=0)
    values = np.array([1.0, 1.0, 1.0, 0.0])
    means = [values[rows].mean() for rows in resampling.places(["A", "A", "A", "B"])]
    shares = {v: means.count(v) / len(means) for v in set(means)}
    assert set(shares) == {0.0, 0.75, 1.0}
    assert shares[0.0] == pytest.approx(0.25, abs=0.03)
    assert shares[0.75] == pytest.approx(0.5, abs=0.03)
    assert interval(means) == (0.0, 1.0)


def test_means_are_those_of_the_places() -> None:
    """The mean without a loop is the mean of each draw's rows, and NaN where it has no number."""
    subjects = ["A", "B", "A", "C"]
    values = np.array([1.0, np.nan, 0.25, 4.0])
    resampling = Resampling(subjects, draws=200, seed=1)
    loop = []
    for rows in resampling.places(subjects):
        drawn = values[rows][~np.isnan(values[rows])]
        loop.append(drawn.mean() if len(drawn) else np.nan)
    assert np.isnan(loop).any()
    np.testing.assert_allclose(resampling.means(subjects, values), loop)


def test_one_subject_has_no_interval() -> None:
    assert Resampling(["A", "A"], draws=100, seed=0).places(["A", "A"]) == []


def test_interval_is_the_middle_95_percent() -> None:
    low, high = interval([float(n) for n in range(1001)]) or (0, 0)
    assert (low, high) == (25.0, 975.0)
    assert interval([]) is None
