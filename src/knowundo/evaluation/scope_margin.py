"""Scope margin: how much of the retention scope stays while the unlearn scope goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def scope_margin(trajectory: Sequence[Mapping[str, float]]) -> float | None:
    """Area under Retention Success against Unlearn Success along a training, in percent.

    At each degree of unlearning, the best retention of an evaluation step that unlearned at least
    as much; 0 beyond the step that unlearned most. 100 if some step has lost nothing of what must
    stay and everything that must go. It does not depend on when training stopped, only on the
    steps passed through: KnowUnDo's two successes (Tian et al. 2024, arXiv:2407.01920, Eq. 3 and 4)
    as a curve.

    Args:
        trajectory: Evaluation steps with token accuracies in [0, 1] as `unlearn` and `retention`.

    Returns:
        `None` if there are none.
    """
    steps = sorted(((1 - step["unlearn"], step["retention"]) for step in trajectory), reverse=True)
    if not steps:
        return None
    area, best = 0.0, 0.0
    for number, (unlearned, retention) in enumerate(steps):
        best = max(best, retention)
        less = steps[number + 1][0] if number + 1 < len(steps) else 0.0
        area += best * (unlearned - less)
    return 100 * area
