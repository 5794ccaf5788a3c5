"""The Pareto front of a sweep."""

from __future__ import annotations

from knowundo.sweeps.results import pareto_front


def test_pareto_front_holds_what_no_other_trial_beats() -> None:
    assert pareto_front([]) == []
    points = [(0.5, 1.0), (0.9, 3.0), (0.9, 2.0), (0.4, 1.0), (0.5, 1.0), (1.0, 9.0), (0.2, -1.0)]
    assert pareto_front(points) == [5, 2, 0, 4, 6]
