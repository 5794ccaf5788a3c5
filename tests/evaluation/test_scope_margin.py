"""The area under the curve of a training, by hand."""

from __future__ import annotations

import pytest

from knowundo.evaluation.scope_margin import scope_margin


def steps(*accuracies: tuple[float, float]) -> list[dict[str, float]]:
    return [{"step": float(n), "unlearn": u, "retention": r} for n, (u, r) in enumerate(accuracies)]


def test_area_of_three_steps() -> None:
    """Up to 0.2 unlearned the best is 1.0, from there to 0.6 it is 0.8, to 0.9 it is 0.5."""
    area = 0.2 * 1.0 + 0.4 * 0.8 + 0.3 * 0.5
    curve = steps((0.8, 1.0), (0.4, 0.8), (0.1, 0.5))
    assert scope_margin(curve) == pytest.approx(100 * area)
    # A step that is worse at both adds nothing, and their order does not matter.
    assert scope_margin([*steps((0.5, 0.7)), *curve[::-1]]) == pytest.approx(100 * area)


def test_ends() -> None:
    assert scope_margin(steps((1.0, 1.0), (0.0, 1.0))) == 100
    assert scope_margin(steps((1.0, 1.0))) == 0
    assert scope_margin([]) is None
