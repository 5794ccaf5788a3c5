"""TOFU's measures of true against wrong answers (Maini et al. 2024, arXiv:2401.06121)."""

from __future__ import annotations

import math

import numpy as np

from knowundo.evaluation.groups import Scores, Unmeasured
from knowundo.registry import metric, scorer
from knowundo.scoring.seen import Alternatives

# e to more than this is no finite number.
_MOST = 700.0


@scorer(needs="alternatives", asked=True)
def wrong_over_true(answers: Alternatives) -> float:
    """TOFU's R: probability of the wrong answers over that of the paraphrased true one.

    Probabilities are per token, P^(1/tokens). Of the wrong ones it is the geometric mean, as in
    TOFU's `aggregate_eval_stat.py` and in both of its forget qualities; the paper's equation and
    its `utils.py` take the arithmetic mean for the model utility.
    """
    return math.exp(max(-_MOST, min(answers.paraphrase - float(np.mean(answers.others)), _MOST)))


@metric(higher_is="remembered", asks=("option_probability",))
@scorer(needs="alternatives", asked=True)
def option_probability(answers: Alternatives) -> float | None:
    """P of the true answer over the sum of P of all answers, each P^(1/tokens), as in TOFU."""
    every = np.exp(-np.array([answers.true, *answers.others]))
    return float(every[0] / every.sum()) if every.sum() > 0 else None


@metric(higher_is="forgotten", unit="ratio", asks=("wrong_over_true",))
def truth_ratio(scores: Scores) -> float:
    """Mean of min(R, 1/R): 1 where wrong and true answers are equally likely, as in TOFU."""
    ratio = np.maximum(scores["wrong_over_true"], math.exp(-_MOST))
    return float(np.minimum(ratio, 1 / ratio).mean())


@metric(higher_is="remembered", unit="ratio", asks=("wrong_over_true",))
def truth_preference(scores: Scores) -> float:
    """Mean of max(0, 1 − R): the true answer is preferred; TOFU's truth ratio of what stays."""
    return float(np.maximum(0, 1 - scores["wrong_over_true"]).mean())


@metric(
    higher_is="forgotten",
    unit="ratio",
    groups=("unlearn/train",),
    asks=("wrong_over_true",),
    interval=False,
)
def forget_quality(scores: Scores, *, reference: tuple[Scores] | None = None) -> float:
    """p-value of a Kolmogorov-Smirnov test of truth ratios against the retain model's (TOFU).

    Two-sided, on R of the unlearn rows. Resampling a p-value tells nothing, so it has no interval.

    Args:
        scores: The model's.
        reference: The retain model's. If `None`, it is not measured.
    """
    from scipy.stats import ks_2samp

    if reference is None:
        raise Unmeasured("reference")
    own, retain = scores["wrong_over_true"], reference[0]["wrong_over_true"]
    return float(ks_2samp(own, retain).pvalue)


@metric(
    higher_is="remembered",
    unit="ratio",
    groups=("retention/train/evaluated", "general/val/real_authors", "general/val/world_facts"),
    asks=("wrong_over_true", "option_probability"),
)
def model_utility(retain: Scores, authors: Scores, facts: Scores) -> float:
    """Harmonic mean of probability, ROUGE-L recall and truth ratio of what stays (TOFU).

    Nine values: of retain authors, real authors and world facts. The probability of the latter two
    is that among the given options.
    """
    values = [float(np.exp(-retain["mean_nll"]).mean())]
    values += [float(scores["option_probability"].mean()) for scores in (authors, facts)]
    for scores in (retain, authors, facts):
        values += [float(scores["rouge_l"].mean()), truth_preference(scores)]
    return len(values) / sum(1 / value for value in values) if all(values) else 0.0
