"""The scores of an erasure before and after, row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from knowundo.erasure.request import ERASED
from knowundo.erasure_results import Change
from knowundo.pipeline.scores import unaltered_rows
from knowundo.runs.run import Run
from knowundo.scoring.table import read_scores

# The column of answers that are exactly the true one.
EXACT = "exact_match"


@dataclass(frozen=True)
class ScorePair:
    """The rows of `scoring.table.score_adapters` before and after, by the id of their record."""

    before: pd.DataFrame
    after: pd.DataFrame

    @classmethod
    def of(cls, run: Run) -> ScorePair:
        """The scores of a run that is evaluated."""
        tables = (
            unaltered_rows(read_scores(run.scores(name) / "rows.parquet")).set_index("id")
            for name in ("memorized", ERASED)
        )
        return cls(*tables)

    def rows(self, scope: str, split: str | None = None) -> ScorePair:
        """The rows of a scope, and of a split if one is named."""
        found = self.before[self.before["scope"] == scope]
        return self.only(found if split is None else found[found["split"] == split])

    def where(self, chosen: pd.Series) -> ScorePair:
        """The rows for which a Boolean column holds."""
        return self.only(self.before[chosen])

    def only(self, rows: pd.DataFrame) -> ScorePair:
        """The rows of the same records."""
        return ScorePair(rows, self.after.loc[rows.index])

    def subsets(self) -> pd.Series:
        """The subset of each row, empty where it has none."""
        return self.before["subset"].fillna("").astype(str)

    def percent(self, column: str) -> Change:
        """100 times the mean of a column of shares, over the rows that have a number."""
        return self._change(column, lambda values: 100 * float(values.mean()))

    def perplexity(self) -> Change:
        """Exponential of the mean NLL per token, as the metric `perplexity` has it."""
        return self._change("mean_nll", lambda values: float(np.exp(min(values.mean(), 700.0))))

    def _change(self, column: str, of: Callable[[pd.Series], float]) -> Change:
        before, after = self.before[column], self.after[column]
        ends = [of(found) if len(found := one.dropna()) else None for one in (before, after)]
        scored = int((before.notna() & after.notna()).sum())
        return Change(before=ends[0], after=ends[1], records=scored)
