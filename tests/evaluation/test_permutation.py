"""The permutation test against counting all swaps."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from score_tables import table

from knowundo.evaluation.permutation import Swaps, p_value
from knowundo.evaluation.result_rows import Evaluation


def test_the_first_draw_swaps_nothing() -> None:
    one, other = np.array([1.0, 2.0, 6.0]), np.array([0.0, 2.0, 1.0])
    means = Swaps("AB", draws=50, seed=0).means(["A", "A", "B"], one, other)
    assert (means[0][0], means[1][0]) == (3, 1)
    # Swapped are A (1 + 2 against 0 + 2), B (6 against 1), both or neither.
    ways = {(9, 3), (8, 4), (4, 8), (3, 9)}
    found = {tuple(round(3 * value) for value in pair) for pair in zip(*means, strict=True)}
    assert found == ways


def test_p_is_the_share_of_swaps_that_differ_as_much() -> None:
    """Subject by subject 5, 4, 3, 2, −1: all 32 ways of signs, by counting."""
    changes = [5.0, 4.0, 3.0, 2.0, -1.0]
    sums = [abs(np.dot(signs, changes)) for signs in product((1, -1), repeat=5)]
    exact = np.mean([value >= sum(changes) for value in sums])
    one, none = np.array(changes), np.zeros(5)
    means = Swaps("ABCDE", draws=20_000, seed=0).means(list("ABCDE"), one, none)
    assert p_value(means[0] - means[1]) == pytest.approx(exact, abs=0.01)


def test_models_are_compared_on_the_same_subjects() -> None:
    """Ten subjects that all forgot more are no chance; equal models differ by chance only."""
    names = "ABCDEFGHIJ"
    stay = [(name, 1.0) for name in names]
    tables = {
        "one": table(unlearn=[(name, 0.9) for name in names], retention=stay),
        "two": table(unlearn=[(name, 0.5) for name in names], retention=stay),
        "retain": table(unlearn=[(name, 0.4) for name in names], retention=stay),
    }
    evaluation = Evaluation(tables, target="retain", draws=4000, seed=0)
    found = {pair.metric: pair.p for pair in evaluation.compare("one", "two")}
    # 2 of 1024 ways leave as large a difference.
    assert found["average_success"] == pytest.approx(2 / 1024, abs=0.002)
    assert found["gap_to_target"] == pytest.approx(2 / 1024, abs=0.002)
    assert {pair.p for pair in evaluation.compare("one", "one")} == {1.0}
