"""The table of a study: every figure of every setting, as mean and interval over its seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import t as student

from knowundo.reporting.tables import COLUMNS, Column
from knowundo.results import Results
from knowundo.storage.files import write_json, write_text
from knowundo.studies.grid import Point

SCHEMA_VERSION = 1
_DOCUMENTED = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class StudyRun(BaseModel):
    """One run of a study."""

    model_config = _DOCUMENTED

    name: str
    """Of its folder in `runs`."""
    values: dict[str, Any]
    """Keys of the recipe that its point sets."""
    state: str
    """finished, failed or missing."""
    said: str = ""
    """Of a run that failed, the last line that it said."""


class StudyRow(BaseModel):
    """One figure of one model in one setting, over seeds."""

    model_config = _DOCUMENTED

    setting: dict[str, Any]
    """Values of the point, but for the seed."""
    variant: str
    """Name of the model."""
    metric: str
    """Name of the metric."""
    scope: str | None
    """Of the rows. Null: over several scopes."""
    split: str
    """Of the rows."""
    subset: str | None
    """Part of the rows. Null: all of them."""
    values: list[float]
    """Of each run that scored it, in the order of the points."""
    mean: float
    """Of the values."""
    low: float | None
    """Lower end of the 95 % interval of the mean over seeds. Null: fewer than two values."""
    high: float | None
    """Upper end of the interval."""


class StudyResults(BaseModel):
    """study.json: what came of a study."""

    model_config = _DOCUMENTED

    schema_version: int = SCHEMA_VERSION
    """Version of this schema."""
    runs: list[StudyRun]
    """All runs of the grid."""
    data_sha256: list[str] = Field(default_factory=list)
    """Different hashes of the records that runs were made of."""
    packages: list[dict[str, str]] = Field(default_factory=list)
    """Different versions of the packages that computed."""
    hardware: list[dict[str, Any]] = Field(default_factory=list)
    """Different machines that scored."""
    rows: list[StudyRow]
    """The figures of the main table, by setting and model."""

    @property
    def unfinished(self) -> list[StudyRun]:
        """Runs without results."""
        return [run for run in self.runs if run.state != "finished"]


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean of independent values, by Student's t; `None` of fewer than 2.

    Seeds are few, so the normal distribution would be too sure of itself: with three values the
    factor is 4.3 instead of 1.96.
    """
    if len(values) < 2:
        return None
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def summarized(
    points: Sequence[Point], runs: Sequence[StudyRun], results: Mapping[str, Results]
) -> StudyResults:
    """The table of what finished runs found.

    Args:
        points: Of the grid.
        runs: Their states.
        results: Of finished runs, by the name of the point.
    """
    settings = dict[str, list[Point]]()
    for point in points:
        if point.name in results:
            key = json.dumps(point.setting(), sort_keys=True, default=str)
            settings.setdefault(key, []).append(point)
    rows = list[StudyRow]()
    for group in settings.values():
        found = [results[point.name] for point in group]
        for variant in dict.fromkeys(one.name for run in found for one in run.variants):
            for column in COLUMNS:
                if (row := _row(found, variant, column, group[0].setting())) is not None:
                    rows.append(row)
    return StudyResults(
        runs=list(runs),
        data_sha256=sorted({run.data_sha256 for run in results.values()}),
        packages=_different([run.packages for run in results.values()]),
        hardware=_different([dict(run.hardware) for run in results.values()]),
        rows=rows,
    )


def _different(held: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json.dumps(one, sort_keys=True): one for one in held}.values())


def _row(
    runs: Sequence[Results], variant: str, column: Column, setting: dict[str, Any]
) -> StudyRow | None:
    group = column.metric, column.scope, column.split, column.subset
    found = [run.find(variant, *group) for run in runs]
    values = [row.value for row in found if row is not None and row.value is not None]
    if not values:
        return None
    low, high = interval(values) or (None, None)
    return StudyRow(
        setting=setting, variant=variant, metric=column.metric, scope=column.scope,
        split=column.split, subset=column.subset, values=values, mean=mean(values),
        low=low, high=high,
    )  # fmt: skip


def write_study(found: StudyResults, folder: Path) -> None:
    """Write study.json and the table as Markdown, study.md."""
    write_json(folder / "study.json", found.model_dump(mode="json"))
    write_text(folder / "study.md", markdown(found))


def markdown(found: StudyResults) -> str:
    """One table a setting, a line a model: mean, half the interval's width, number of seeds."""
    parts = list[str]()
    for setting in _different([row.setting for row in found.rows]):
        rows = [row for row in found.rows if row.setting == setting]
        used = [c for c in COLUMNS if any(_is(row, c) for row in rows)]
        title = ", ".join(f"{key} {value}" for key, value in setting.items()) or "all runs"
        parts += [f"## {title}", ""]
        parts += ["| model | n | " + " | ".join(c.title for c in used) + " |"]
        parts += ["|---|--:|" + "--:|" * len(used)]
        for variant in dict.fromkeys(row.variant for row in rows):
            own = [row for row in rows if row.variant == variant]
            cells = [next((shown(r) for r in own if _is(r, c)), "–") for c in used]
            count = max(len(row.values) for row in own)
            parts.append(f"| {variant} | {count} | " + " | ".join(cells) + " |")
        parts.append("")
    parts += ["Mean over seeds ± half of its 95 % interval (Student's t)."]
    for run in found.unfinished:
        parts.append(f"- {run.name}: {run.state}{f', {run.said}' if run.said else ''}")
    return "\n".join(parts) + "\n"


def _is(row: StudyRow, column: Column) -> bool:
    group = row.metric, row.scope, row.split, row.subset
    return group == (column.metric, column.scope, column.split, column.subset)


def shown(row: StudyRow) -> str:
    """A figure with half of its interval's width."""
    if row.low is None or row.high is None:
        return f"{row.mean:.1f}"
    return f"{row.mean:.1f} ± {(row.high - row.low) / 2:.1f}"
