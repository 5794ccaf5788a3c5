"""Scores of one group of records, as metrics and resampling see them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd


class Unmeasured(Exception):
    """A metric asked for a column that holds no number in this group."""


@dataclass(frozen=True)
class Scores:
    """Columns of a group's rows; `scores["mean_nll"]` is an array, one number a record.

    Records that a column does not measure are left out of it. `read` collects the columns that a
    metric asked for.
    """

    columns: dict[str, np.ndarray]
    rows: np.ndarray | None = None
    read: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Scores:
        """Take the numeric columns of a table."""
        numbers = frame.select_dtypes("number")
        return cls({str(name): numbers[name].to_numpy(float) for name in numbers})

    def take(self, rows: np.ndarray) -> Scores:
        """The same columns at these places, with repetition where subjects are resampled."""
        return Scores(self.columns, rows)

    def __getitem__(self, name: str) -> np.ndarray:
        self.read.add(name)
        column = self.columns[name]
        values = column if self.rows is None else column[self.rows]
        values = values[~np.isnan(values)]
        if not len(values):
            raise Unmeasured(name)
        return values

    def paired(self, name: str, other: Scores) -> tuple[np.ndarray, np.ndarray]:
        """A column here and in scores of the same records, of the records that both measure.

        Raises:
            Unmeasured: There is none.
        """
        both = []
        for scores in (self, other):
            scores.read.add(name)
            column = scores.columns[name]
            both.append(column if scores.rows is None else column[scores.rows])
        there = ~np.isnan(both[0]) & ~np.isnan(both[1])
        if not there.any():
            raise Unmeasured(name)
        return both[0][there], both[1][there]

    def unmeasured(self) -> int:
        """Rows that lack a number in some column that was read."""
        gaps = [int(np.isnan(self.columns[name]).sum()) for name in self.read]
        return max(gaps, default=0)
