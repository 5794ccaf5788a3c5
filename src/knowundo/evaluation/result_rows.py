"""The rows of results.json: every metric on every group of records, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np
import pandas as pd

from knowundo.evaluation.groups import Scores
from knowundo.evaluation.intervals import Resampling, interval
from knowundo.evaluation.measuring import Group, measure, measured_metrics
from knowundo.evaluation.permutation import Swaps, p_value
from knowundo.progress import Progress
from knowundo.results import Comparison, Row

# Subsets are reported where a scope mixes different things: facts and plain text.
_WITH_SUBSETS = ("general",)
# Rows of an earlier erasure request, asked again: `request-1` and so on.
EARLIER = "request-"
_SUCCESS = {"unlearn": "unlearn_success", "retention": "retention_success"}
# Made of both scopes: KnowUnDo's mean, and the distance to what the retain model reaches.
AVERAGE, GAP = "average_success", "gap_to_target"

# A value, and the values of the resamples.
Sampled = tuple[float, list[float]]


class Evaluation:
    """Scored models. All share the resamples, so they are compared on the same subjects."""

    def __init__(
        self,
        tables: dict[str, pd.DataFrame],
        *,
        target: str | None,
        draws: int,
        seed: int,
        asked: Sequence[str] = (),
    ) -> None:
        """Take the tables.

        Args:
            tables: Model → its rows of `scoring.table.score_adapters`. All have the same records.
            target: Name of the retain model, whose values are the reference of every row. If
                `None`, rows have no reference.
            draws: Number of resamples of the subjects.
            seed: Of the draws.
            asked: Metrics that are measured only where they are asked for.
        """
        self.tables, self.target, self.draws, self.seed = tables, target, draws, seed
        self.asked = asked
        self._resamplings: dict[tuple[str, ...], Resampling] = {}

    def _resampling(self, among: Iterable[str]) -> Resampling:
        key = tuple(sorted(set(among)))
        if key not in self._resamplings:
            self._resamplings[key] = Resampling(key, self.draws, self.seed)
        return self._resamplings[key]

    def rows(self, progress: Progress | None = None) -> list[Row]:
        """All rows of results.json, each with the target's value as its reference."""
        rows: list[Row] = []
        for number, variant in enumerate(self.tables, start=1):
            rows += self._variant_rows(variant)
            if progress:
                progress(number, len(self.tables))
        target = {_key(row): row.value for row in rows if row.variant == self.target}
        return [row.model_copy(update={"reference": target.get(_key(row))}) for row in rows]

    def _variant_rows(self, variant: str) -> Iterable[Row]:
        table = self.tables[variant]
        for (scope, split), group in table.groupby(["scope", "split"], sort=False):
            yield from self._group_rows(variant, group, str(scope), str(split), None)
            for subset, part in group.groupby("subset", sort=False):
                if scope in _WITH_SUBSETS or str(subset).startswith(EARLIER):
                    yield from self._group_rows(variant, part, str(scope), str(split), str(subset))
        for split in self._success_splits(table):
            yield from self._success_rows(variant, split)
        yield from self._rows_over_groups(variant)

    @staticmethod
    def _success_splits(table: pd.DataFrame) -> list[str]:
        """Splits with rows of both scopes, and val always: that it has none is a result too."""
        scopes = table[table["scope"].isin(_SUCCESS)].groupby("split")["scope"].nunique()
        both = set(scopes[scopes == len(_SUCCESS)].index)
        return [split for split in ("train", "val", "probe") if split in both or split == "val"]

    def _group_rows(
        self, variant: str, group: pd.DataFrame, scope: str, split: str, subset: str | None
    ) -> Iterable[Row]:
        one = self._group(group)
        resampling = self._resampling(one.subjects)
        for entry in measured_metrics(self.asked, over_groups=False):
            value, samples, unscored = measure(entry, [one], resampling)
            row = _row(variant, entry.name, scope, split, group, value, samples)
            yield row.model_copy(update={"subset": subset, "unscored": unscored})

    def _group(self, rows: pd.DataFrame) -> Group:
        """Some rows of a model, with the same rows of the target."""
        reference = None
        if self.target is not None:
            # All tables have the same records in the same order, and so the same index.
            reference = Scores.of(self.tables[self.target].loc[rows.index])
        return Group(Scores.of(rows), rows["subject"].tolist(), reference)

    def _rows_over_groups(self, variant: str) -> Iterable[Row]:
        """Metrics over several groups of which each has records."""
        for entry in measured_metrics(self.asked, over_groups=True):
            places = [_place(name) for name in entry.facts["groups"]]
            parts = [_part(self.tables[variant], *place) for place in places]
            if any(part.empty for part in parts):
                continue
            groups, whole = [self._group(part) for part in parts], pd.concat(parts)
            resampling = self._resampling(whole["subject"])
            value, samples, unscored = measure(entry, groups, resampling)
            scope, split, _ = (
                one.pop() if len(one := set(names)) == 1 else None
                for names in zip(*places, strict=True)
            )
            row = _row(variant, entry.name, scope, split, whole, value, samples)
            yield row.model_copy(update={"unscored": unscored})

    @cache  # noqa: B019  an evaluation lives as long as its process needs the answers
    def _success(self, variant: str, split: str) -> dict[str, Sampled]:
        """Unlearn and Retention Success and what is made of both, by the metric's name.

        KnowUnDo, Eq. 3 and 4: 100 − token accuracy on unlearn, token accuracy on retention. The
        gap is the mean over the scopes of |success − the target's success|. A metric of a scope
        without rows is absent.
        """
        table = self.tables[variant]
        split_rows = table[(table["split"] == split) & table["scope"].isin(_SUCCESS)]
        everyone = split_rows["subject"].tolist()
        found: dict[str, Sampled] = {}
        for scope, name in _SUCCESS.items():
            group = split_rows[split_rows["scope"] == scope]
            if group.empty:
                continue
            good = _good(group, scope)
            if np.isnan(good).all():  # such as answers that an attack drew
                continue
            places = self._resampling(everyone).places(group["subject"].tolist())
            found[name] = float(good.mean()), [_mean(good, rows) for rows in places]
        if len(found) < len(_SUCCESS):
            return found
        found[AVERAGE] = _combine(lambda a, b: (a + b) / 2, *found.values())
        if self.target is not None and variant != self.target:
            aim = self._success(self.target, split)
            gaps = [_combine(lambda a, b: abs(a - b), found[n], aim[n]) for n in _SUCCESS.values()]
            found[GAP] = _combine(lambda a, b: (a + b) / 2, *gaps)
        return found

    def _success_rows(self, variant: str, split: str) -> Iterable[Row]:
        table = self.tables[variant]
        scopes = {name: scope for scope, name in _SUCCESS.items()}
        found = self._success(variant, split)
        for name in (*scopes, AVERAGE, GAP):
            if name == GAP and self.target in (None, variant):
                continue
            scope = scopes.get(name)
            chosen = table["scope"] == scope if scope else table["scope"].isin(_SUCCESS)
            group = table[(table["split"] == split) & chosen]
            # An empty group has no value: it is null with its count, not 0.
            value, samples = found.get(name, (None, []))
            yield _row(variant, name, scope, split, group, value, samples)

    @cache  # noqa: B019  as above
    def _swapped(self, variant: str, against: str, split: str) -> dict[str, float]:
        """p-values of the success metrics' differences, if subjects' scores are swapped."""
        rows = [t[(t["split"] == split) & t["scope"].isin(_SUCCESS)]
                for t in (self.tables[variant], self.tables[against])]  # fmt: skip
        if rows[0]["id"].tolist() != rows[1]["id"].tolist():
            return {}
        swaps = Swaps(rows[0]["subject"], self.draws, self.seed)
        means = dict[str, tuple[np.ndarray, np.ndarray]]()
        for scope, name in _SUCCESS.items():
            one, other = (part[part["scope"] == scope] for part in rows)
            if len(one):
                good = _good(one, scope), _good(other, scope)
                if np.isnan(good).any():
                    continue
                means[name] = swaps.means(one["subject"].tolist(), *good)
        if len(means) == len(_SUCCESS):
            means[AVERAGE] = _of_both(list(means.values()))
            if self.target is not None:
                aim = self._success(self.target, split)
                gaps = [(abs(a - aim[n][0]), abs(b - aim[n][0])) for n, (a, b) in means.items()
                        if n != AVERAGE]  # fmt: skip
                means[GAP] = _of_both(gaps)
        return {name: p_value(one - other) for name, (one, other) in means.items()}

    def compare(
        self,
        variant: str,
        against: str,
        split: str = "val",
        metrics: Sequence[str] = (AVERAGE, GAP),
    ) -> list[Comparison]:
        """One model minus another on the same resampled subjects, for each success metric.

        Args:
            variant: The model.
            against: What is subtracted.
            split: Rows that are compared.
            metrics: Success metrics; one that a model lacks is left out.
        """
        first, second = self._success(variant, split), self._success(against, split)
        found = []
        for metric in metrics:
            if metric in first and metric in second:
                chance = self._swapped(variant, against, split).get(metric)
                value, samples = _combine(lambda a, b: a - b, first[metric], second[metric])
                low, high = interval(samples) or (None, None)
                names = {"variant": variant, "against": against, "metric": metric, "split": split}
                found.append(Comparison(**names, value=value, low=low, high=high, p=chance))
        return found


def _row(
    variant: str,
    metric: str,
    scope: str | None,
    split: str | None,
    group: pd.DataFrame,
    value: float | None,
    samples: Sequence[float],
) -> Row:
    low, high = interval(samples) or (None, None)
    return Row(
        variant=variant,
        metric=metric,
        scope=scope,
        split=split,
        value=value,
        low=low,
        high=high,
        records=len(group),
        subjects=group["subject"].nunique(),
    )


def _good(group: pd.DataFrame, scope: str) -> np.ndarray:
    """Success of each row, in percent."""
    accuracy = group["token_accuracy"].to_numpy(float)
    good: np.ndarray = 100 * (1 - accuracy if scope == "unlearn" else accuracy)
    return good


def _combine(rule: Callable[[float, float], float], first: Sampled, second: Sampled) -> Sampled:
    """Two sampled values combined resample by resample, so that their pairing is kept."""
    samples = [rule(a, b) for a, b in zip(first[1], second[1], strict=True)]
    return rule(first[0], second[0]), samples


def _key(row: Row) -> tuple[str | None, ...]:
    return (row.metric, row.scope, row.split, row.subset)


def _mean(values: np.ndarray, rows: np.ndarray) -> float:
    return float(values[rows].mean()) if len(rows) else float("nan")


def _of_both(scopes: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The mean over the scopes, for either model."""
    (one, other), (also_one, also_other) = scopes
    return (one + also_one) / 2, (other + also_other) / 2


def _place(name: str) -> tuple[str, str, str | None]:
    """Scope, split and subset of `scope/split` or `scope/split/subset`."""
    scope, split, *subset = name.split("/")
    return scope, split, subset[0] if subset else None


def _part(table: pd.DataFrame, scope: str, split: str, subset: str | None) -> pd.DataFrame:
    chosen = (table["scope"] == scope) & (table["split"] == split)
    return table[chosen if subset is None else chosen & (table["subset"] == subset)]
