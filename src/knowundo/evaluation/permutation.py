"""A paired permutation test of two models, which swaps their scores subject by subject.

If both models were alike, it would not matter which of them gave a subject's scores (Fisher 1935).
Subjects are swapped and not rows: nine questions about one person are not nine facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


class Swaps:
    """Draws of which subjects are swapped; the first one swaps none."""

    def __init__(self, subjects: Iterable[str], draws: int, seed: int) -> None:
        """Draw.

        Args:
            subjects: Of all rows; order and repetition do not matter.
            draws: Number of random draws beside the one without swaps.
            seed: Of the draws.
        """
        self._number = {name: i for i, name in enumerate(sorted(set(subjects)))}
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, len(self._number)))
        self._signs = np.concatenate([np.ones((1, len(self._number))), signs])

    def means(
        self, subjects: Sequence[str], one: np.ndarray, other: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mean of each model for each draw, [draws + 1] each.

        Args:
            subjects: The subject of each row.
            one: A number for each row, of the first model.
            other: The same of the second one.
        """
        of = [self._number[subject] for subject in subjects]
        half = np.bincount(of, (one - other) / 2, len(self._number)) / len(of)
        middle, moved = (one + other).mean() / 2, self._signs @ half
        return middle + moved, middle - moved


def p_value(differences: np.ndarray) -> float:
    """Share of draws whose difference is at least as large as that without swaps; two-sided.

    Args:
        differences: [draws + 1], the first without swaps.
    """
    return float((np.abs(differences) >= abs(differences[0]) - 1e-9).mean())
