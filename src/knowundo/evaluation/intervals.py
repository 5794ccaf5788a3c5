"""Percentile bootstrap over subjects (Efron 1979).

Subjects and not rows are drawn: nine questions about one person are not nine facts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

LEVEL = 95


class Resampling:
    """Draws of subjects with replacement, the same wherever the subjects are the same.

    Because variants share the draws, their differences are differences on the same subjects. One
    subject alone has no spread to resample: there are no draws then, and so no interval.
    """

    def __init__(self, subjects: Sequence[str], draws: int, seed: int) -> None:
        """Draw.

        Args:
            subjects: all subjects; order and repetition do not matter.
            draws: resamples.
            seed: of the draws.
        """
        self.names = sorted(set(subjects))
        shape = (draws if len(self.names) > 1 else 0, len(self.names))
        self.drawn = np.random.default_rng(seed).integers(len(self.names), size=shape)

    def places(self, subjects: Sequence[str]) -> list[np.ndarray]:
        """For each draw the places of the drawn subjects' rows, repeated as often as drawn.

        Args:
            subjects: the subject of each row of a group.
        """
        number = {name: i for i, name in enumerate(self.names)}
        of = np.array([number[subject] for subject in subjects], dtype=int)
        by_subject = [np.flatnonzero(of == i) for i in range(len(self.names))]
        return [np.concatenate([by_subject[i] for i in draw]) for draw in self.drawn]


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The middle 95 % of the resampled values; None if there are none."""
    finite = np.array([value for value in values if np.isfinite(value)])
    if not len(finite):
        return None
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(finite, [tail, 100 - tail])
    return float(low), float(high)


def resampled(metric: Callable[[np.ndarray], float], places: Sequence[np.ndarray]) -> list[float]:
    """The metric called again on every draw; draws without a row are left out."""
    return [metric(rows) for rows in places if len(rows)]
