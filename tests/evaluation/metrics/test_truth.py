"""TOFU's aggregates, computed by hand and by the formulas of its paper and code."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from knowundo.data.records import Record
from knowundo.evaluation.groups import Scores, Unmeasured
from knowundo.registry import get
from knowundo.scoring.seen import Alternatives

RECORD = Record("a", "Who?", "Ada", "unlearn", "train", alternatives=("Bo", "Cy"))


def weighed(true: float, paraphrase: float, *others: float) -> Alternatives:
    """Of probabilities per token."""
    return Alternatives(
        RECORD, -math.log(true), -math.log(paraphrase), [-math.log(p) for p in others]
    )


def ratios(*values: float) -> Scores:
    return Scores({"wrong_over_true": np.array(values)})


def test_ratio_of_wrong_and_paraphrased_answers() -> None:
    """The geometric mean of 0.2 and 0.8 is 0.4; over the paraphrase's 0.5 that is 0.8."""
    ratio = get("scorer", "wrong_over_true")
    assert ratio(weighed(0.9, 0.5, 0.2, 0.8)) == pytest.approx(0.8)
    assert math.isfinite(ratio(Alternatives(RECORD, 0.0, 5000.0, [0.0])))


def test_probability_among_the_options() -> None:
    """0.6 of 0.6 + 0.2 + 0.1; the paraphrase is no option."""
    assert get("scorer", "option_probability")(weighed(0.6, 0.9, 0.2, 0.1)) == pytest.approx(2 / 3)


def test_truth_ratio_is_one_where_nothing_is_known() -> None:
    """Of R = 1, 4 and 1/2 the smaller of R and 1/R: 1, 1/4, 1/2."""
    assert get("metric", "truth_ratio")(ratios(1, 4, 0.5)) == pytest.approx((1 + 0.25 + 0.5) / 3)
    assert math.isfinite(get("metric", "truth_ratio")(ratios(0.0)))
    assert get("metric", "truth_preference")(ratios(1, 4, 0.5)) == pytest.approx(0.5 / 3)


def exact_p(one: list[float], two: list[float]) -> float:
    """Share of all ways to deal the values out in which the largest distance is no smaller."""

    def distance(a: list[float], b: list[float]) -> float:
        return max(
            abs(sum(v <= x for v in a) / len(a) - sum(v <= x for v in b) / len(b)) for x in [*a, *b]
        )

    values, seen = [*one, *two], []
    for chosen in product([True, False], repeat=len(values)):
        if sum(chosen) == len(one):
            a = [v for v, mine in zip(values, chosen, strict=True) if mine]
            b = [v for v, mine in zip(values, chosen, strict=True) if not mine]
            seen.append(distance(a, b) >= distance(one, two) - 1e-12)
    return sum(seen) / len(seen)


@pytest.mark.parametrize(
    ("own", "retain"),
    [([0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7]), ([0.1, 0.5, 0.9, 1.3], [0.3, 0.7, 1.1, 0.2])],
)
def test_forget_quality_is_the_p_value_of_a_ks_test(own: list[float], retain: list[float]) -> None:
    """By counting all permutations; the first case, without overlap, is 2 of 35."""
    quality = get("metric", "forget_quality")
    found = quality(ratios(*own), reference=(ratios(*retain),))
    assert found == pytest.approx(exact_p(own, retain))
    # TOFU takes 1/R; the test does not see the difference.
    turned = quality(ratios(*(1 / v for v in own)), reference=(ratios(*(1 / v for v in retain)),))
    assert turned == pytest.approx(found)
    assert quality(ratios(*own), reference=(ratios(*own),)) == pytest.approx(1)
    with pytest.raises(Unmeasured):
        quality(ratios(*own))


def test_model_utility_is_the_harmonic_mean_of_nine() -> None:
    """The values are written down beside each group; one of them at 0 makes it 0."""

    def group(nll: float, option: float, rouge: float, ratio: float) -> Scores:
        columns = {"mean_nll": nll, "option_probability": option}
        columns |= {"rouge_l": rouge, "wrong_over_true": ratio}
        return Scores({name: np.array([value, value]) for name, value in columns.items()})

    retain = group(math.log(2), 0.1, 0.8, 0.6)  # probability 0.5, ROUGE 0.8, truth ratio 0.4
    authors = group(9.0, 0.4, 0.9, 0.5)  # options 0.4, ROUGE 0.9, truth ratio 0.5
    facts = group(9.0, 0.25, 0.75, 0.2)  # options 0.25, ROUGE 0.75, truth ratio 0.8
    nine = [0.5, 0.4, 0.25, 0.8, 0.4, 0.9, 0.5, 0.75, 0.8]
    utility = get("metric", "model_utility")
    assert utility(retain, authors, facts) == pytest.approx(9 / sum(1 / value for value in nine))
    assert utility(retain, authors, group(9.0, 0.25, 0.0, 0.2)) == 0
