"""Membership inference: can unlearn train rows be told from rows that no model saw?

Each attack gives a record a score that is higher for members. Its area under the ROC curve is 50 %
if members cannot be told, 100 % if they are known, and below 50 % if they were made less likely
than what was never seen, which tells them as well. Beside it stands the share of members that is
found where 1 % of the others, rounded down to whole records, are taken for members (Carlini et al.
2022, arXiv:2112.03570).
"""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np

from knowundo.evaluation.groups import Scores, Unmeasured
from knowundo.registry import metric, scorer
from knowundo.scoring.seen import Tokens

# Members, and records of the same kind about subjects that no model saw.
GROUPS = ("unlearn/train", "unlearn/holdout")
# Share of tokens that Min-K reads; as MUSE and OpenUnlearning take it.
_SHARE = 0.4
_FALSE = 0.01
_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """P(member's score > other's) + P(equal) / 2, in percent: the area under the ROC curve."""
    below, up_to = (np.searchsorted(np.sort(others), members, side) for side in _SIDES)
    return 100 * float((below + up_to).mean() / (2 * len(others)))


def found(members: np.ndarray, others: np.ndarray) -> float:
    """Percent of members above the score that at most 1 % of the others exceed."""
    allowed = int(_FALSE * len(others))
    return 100 * float((members > np.sort(others)[::-1][allowed]).mean())


def _lowest(values: np.ndarray) -> float | None:
    count = max(1, int(_SHARE * len(values)))
    return float(np.sort(values)[:count].mean()) if len(values) else None


@scorer(needs="tokens")
def lowest_log_probs(tokens: Tokens) -> float | None:
    """Mean log-probability of the 40 % least likely answer tokens."""
    return _lowest(-tokens.nll)


@scorer(needs="tokens")
def lowest_surprise(tokens: Tokens) -> float | None:
    """Mean of the 40 % lowest log-probabilities, each standardized over the vocabulary."""
    return _lowest(tokens.surprise)


@scorer(needs="tokens")
def nll_by_zlib(tokens: Tokens) -> float | None:
    """Mean negative log-likelihood over the length of the zlib-compressed answer, in bytes."""
    size = len(zlib.compress(tokens.record.answer.encode()))
    return float(tokens.nll.mean()) / size if len(tokens) else None


def _lower(members: Scores, others: Scores, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores of an attack that takes records with low values for members."""
    return -members[column], -others[column]


@metric(higher_is="remembered", groups=GROUPS)
def loss_auc(members: Scores, others: Scores) -> float:
    """AUC of the likelihood (Yeom et al. 2018, arXiv:1709.01604)."""
    return auc(*_lower(members, others, "mean_nll"))


@metric(higher_is="remembered", groups=GROUPS)
def loss_tpr(members: Scores, others: Scores) -> float:
    """Members found by their likelihood at 1 % false positives."""
    return found(*_lower(members, others, "mean_nll"))


@metric(higher_is="remembered", groups=GROUPS)
def zlib_auc(members: Scores, others: Scores) -> float:
    """AUC of the likelihood over zlib length (Carlini et al. 2021, arXiv:2012.07805)."""
    return auc(*_lower(members, others, "nll_by_zlib"))


@metric(higher_is="remembered", groups=GROUPS)
def zlib_tpr(members: Scores, others: Scores) -> float:
    """Members found by likelihood over zlib length at 1 % false positives."""
    return found(*_lower(members, others, "nll_by_zlib"))


@metric(higher_is="remembered", groups=GROUPS)
def min_k_auc(members: Scores, others: Scores) -> float:
    """AUC of Min-K%: the least likely 40 % of tokens (Shi et al. 2024, arXiv:2310.16789)."""
    return auc(members["lowest_log_probs"], others["lowest_log_probs"])


@metric(higher_is="remembered", groups=GROUPS)
def min_k_tpr(members: Scores, others: Scores) -> float:
    """Members found by Min-K% at 1 % false positives."""
    return found(members["lowest_log_probs"], others["lowest_log_probs"])


@metric(higher_is="remembered", groups=GROUPS)
def min_k_plus_plus_auc(members: Scores, others: Scores) -> float:
    """AUC of Min-K%++: standardized over the vocabulary (Zhang et al. 2024, arXiv:2404.02936)."""
    return auc(members["lowest_surprise"], others["lowest_surprise"])


@metric(higher_is="remembered", groups=GROUPS)
def min_k_plus_plus_tpr(members: Scores, others: Scores) -> float:
    """Members found by Min-K%++ at 1 % false positives."""
    return found(members["lowest_surprise"], others["lowest_surprise"])


def _against(
    members: Scores, others: Scores, reference: tuple[Scores, Scores] | None
) -> tuple[np.ndarray, np.ndarray]:
    """How much likelier than to the retain model each answer is, in nats a token."""
    if reference is None:
        raise Unmeasured("reference")
    pairs = (members.paired("mean_nll", reference[0]), others.paired("mean_nll", reference[1]))
    (own_members, retain_members), (own_others, retain_others) = pairs
    return retain_members - own_members, retain_others - own_others


@metric(higher_is="remembered", groups=GROUPS)
def reference_auc(
    members: Scores, others: Scores, *, reference: tuple[Scores, Scores] | None = None
) -> float:
    """AUC of the likelihood against a reference's (Carlini et al. 2021, arXiv:2012.07805).

    Args:
        members: Unlearn train rows.
        others: Holdout rows.
        reference: The retain model's scores of both. If `None`, it is not measured.
    """
    return auc(*_against(members, others, reference))


@metric(higher_is="remembered", groups=GROUPS)
def reference_tpr(
    members: Scores, others: Scores, *, reference: tuple[Scores, Scores] | None = None
) -> float:
    """Members found by likelihood against the retain model's at 1 % false positives.

    Args:
        members: Unlearn train rows.
        others: Holdout rows.
        reference: The retain model's scores of both. If `None`, it is not measured.
    """
    return found(*_against(members, others, reference))


@metric(higher_is="forgotten", groups=GROUPS)
def privleak(
    members: Scores, others: Scores, *, reference: tuple[Scores, Scores] | None = None
) -> float:
    """How far Min-K%'s AUC is from the retain model's, in percent of it (MUSE, arXiv:2407.06460).

    0: as if never seen; below: still known (−100 if every member is told); above: made less likely
    than what was never seen. With MUSE's sign: its AUC is that of not being a member.

    Args:
        members: Unlearn train rows.
        others: Holdout rows.
        reference: The retain model's scores of both. If `None`, it is not measured.
    """
    if reference is None:
        raise Unmeasured("reference")
    own, retain = (100 - min_k_auc(*groups) for groups in ((members, others), reference))
    if not retain:  # every row is told from holdout rows by a model that saw neither
        raise Unmeasured("reference")
    return 100 * (own - retain) / retain
