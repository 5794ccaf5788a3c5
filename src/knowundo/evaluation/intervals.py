"""Percentile bootstrap over subjects (Efron 1979).

Subjects and not rows are drawn: nine questions about one person are not nine facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

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
        self._places: dict[tuple[str, ...], list[np.ndarray]] = {}
        self.drawn = np.random.default_rng(seed).integers(len(self.names), size=shape)

    @cached_property
    def _counts(self) -> np.ndarray:
        """How often each draw has each subject, [draws, subjects]."""
        counts = np.zeros((len(self.drawn), len(self.names)))
        np.add.at(counts, (np.arange(len(self.drawn))[:, None], self.drawn), 1)
        return counts

    def means(self, subjects: Sequence[str], values: np.ndarray) -> np.ndarray:
        """The mean of a column's numbers for each draw, [draws]; NaN where a draw has none.

        What calling `np.mean` for each of `places` gives, to rounding, without a loop.

        Args:
            subjects: The subject of each row of a group.
            values: A number for each row; NaN where it has none.
        """
        of = self._numbers(subjects)
        there, size = ~np.isnan(values), len(self.names)
        sums = np.bincount(of, np.where(there, values, 0.0), size)
        with np.errstate(invalid="ignore"):
            found: np.ndarray = self._counts @ sums / (self._counts @ np.bincount(of, there, size))
        return found

    def _numbers(self, subjects: Sequence[str]) -> np.ndarray:
        number = {name: i for i, name in enumerate(self.names)}
        return np.array([number[subject] for subject in subjects], dtype=int)

    def places(self, subjects: Sequence[str]) -> list[np.ndarray]:
        """For each draw the places of the drawn subjects' rows, repeated as often as drawn.

        Args:
            subjects: the subject of each row of a group.
        """
        key = tuple(subjects)
        if key not in self._places:  # the same rows for every model and every metric
            self._places[key] = self._found(key)
        return self._places[key]

    def _found(self, subjects: Sequence[str]) -> list[np.ndarray]:
        of = self._numbers(subjects)
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
