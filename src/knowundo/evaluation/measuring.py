"""A metric's value on one group of records or several, and its values on resampled subjects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from knowundo.entry import Entry
from knowundo.evaluation.groups import Scores, Unmeasured
from knowundo.evaluation.intervals import Resampling
from knowundo.registry import entries


class Group(NamedTuple):
    """A group of records of a model.

    Attributes:
        scores: Its columns.
        subjects: The subject of each record.
        reference: The same records scored by the retain model; `None` if there is none.
    """

    scores: Scores
    subjects: Sequence[str]
    reference: Scores | None = None


class Measured(NamedTuple):
    """What a metric gave.

    Attributes:
        value: `None` where the groups have nothing that it measures.
        samples: Its value for each draw of subjects; NaN where there was nothing to measure.
        unscored: Records that it does not measure.
    """

    value: float | None
    samples: Sequence[float]
    unscored: int


def measured_metrics(asked: Sequence[str], *, over_groups: bool) -> list[Entry]:
    """Metrics of one group, or over several, without those that have to be asked for.

    Args:
        asked: Those that are asked for.
        over_groups: Which of both.
    """
    return [
        entry
        for entry in entries("metric").values()
        if bool(entry.facts["groups"]) == over_groups
        and (not entry.facts["asks"] or entry.name in asked)
    ]


def measure(entry: Entry, groups: Sequence[Group], resampling: Resampling) -> Measured:
    """A metric of groups.

    Args:
        entry: The metric; it takes as many groups.
        groups: Their subjects are among those of the resampling.
        resampling: Draws.
    """
    call = _Call(entry)
    fresh = [Scores(group.scores.columns) for group in groups]
    value = call(fresh, [group.reference for group in groups])
    if value is None:
        return Measured(None, [], sum(len(group.subjects) for group in groups))
    unscored = sum(scores.unmeasured() for scores in fresh)
    if not entry.facts["interval"]:
        return Measured(value, [], unscored)
    if (factor := getattr(entry.function, "factor", None)) is not None:
        (group,) = groups
        column = group.scores.columns[entry.name]
        return Measured(value, factor * resampling.means(group.subjects, column), unscored)
    return Measured(value, _resampled(call, groups, resampling), unscored)


def _resampled(call: _Call, groups: Sequence[Group], resampling: Resampling) -> list[float]:
    """The metric called again on every draw; draws without a row in some group are left out."""
    places = [resampling.places(group.subjects) for group in groups]
    samples = []
    for drawn in zip(*places, strict=True):
        if not all(len(rows) for rows in drawn):
            continue
        taken = [group.scores.take(rows) for group, rows in zip(groups, drawn, strict=True)]
        references: list[Scores | None] = [
            group.reference.take(rows) if call.compares and group.reference else None
            for group, rows in zip(groups, drawn, strict=True)
        ]
        value = call(taken, references)
        samples.append(float("nan") if value is None else value)
    return samples


class _Call:
    """A metric that is called many times: its signature is read once."""

    def __init__(self, entry: Entry) -> None:
        self.function, self.several = entry.function, bool(entry.facts["groups"])
        self.compares = "reference" in entry.arguments

    def __call__(
        self, scores: Sequence[Scores], references: Sequence[Scores | None]
    ) -> float | None:
        """The metric's value; `None` where the groups have nothing that it measures."""
        given: dict[str, Any] = {}
        if self.compares:
            several = None if None in references else tuple(references)
            given["reference"] = several if self.several else references[0]
        try:
            value: float = self.function(*scores, **given)
        except Unmeasured:
            return None
        return value if math.isfinite(value) else None
