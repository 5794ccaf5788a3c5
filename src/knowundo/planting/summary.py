"""Means over plantings, with intervals that resample plantings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from knowundo.evaluation.intervals import interval
from knowundo.planting.plantings import CHOSEN_ON
from knowundo.planting.trials import RANDOM

Cell = Mapping[str, Any]


def groups_of_cells(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Plantings that a localizer is chosen on, those that it is reported on, and these by kind."""
    reported = [cell for cell in cells if cell["planting"] not in CHOSEN_ON]
    found = {
        "chosen on": [cell for cell in cells if cell["planting"] in CHOSEN_ON],
        "reported": reported,
    }
    for kind in sorted({cell["kind"] for cell in cells}):
        found[f"reported, {kind}"] = [cell for cell in reported if cell["kind"] == kind]
    return {name: members for name, members in found.items() if members}


def mean_with_interval(
    cells: Sequence[Cell], values: Sequence[float], resamples: int
) -> dict[str, Any]:
    """Mean over planted models; the interval resamples plantings, with all their seeds.

    Args:
        cells: Planted models.
        values: What is averaged, one value a model.
        resamples: Number of resamples.

    Returns:
        `mean`, `low`, `high` (`None` for one planting alone), and `n`, the planted models.
    """
    plantings: dict[tuple[str, str], list[float]] = {}
    for cell, value in zip(cells, values, strict=True):
        plantings.setdefault((cell["planting"], cell["kind"]), []).append(value)
    groups, generator = list(plantings.values()), np.random.default_rng(0)
    drawn = generator.integers(len(groups), size=(resamples if len(groups) > 1 else 0, len(groups)))
    means = [float(np.mean(np.concatenate([groups[i] for i in draw]))) for draw in drawn]
    low, high = interval(means) or (None, None)
    everything = np.concatenate(groups)
    return {"mean": float(everything.mean()), "low": low, "high": high, "n": len(everything)}


def summarize(cells: Sequence[Cell], resamples: int) -> dict[str, Any]:
    """By group of plantings, localizer and measure: mean and interval."""
    return {
        group: {
            localizer: {
                measure: mean_with_interval(
                    members, [cell["localizers"][localizer][measure] for cell in members], resamples
                )
                for measure in ("auc", "average_precision")
            }
            for localizer in members[0]["localizers"]
        }
        for group, members in groups_of_cells(cells).items()
    }


def summarize_trials(cells: Sequence[Cell], resamples: int) -> dict[str, Any]:
    """By group and region: its score, and that minus the mean of the random regions' scores."""
    found: dict[str, Any] = {}
    for group, members in groups_of_cells([cell for cell in cells if cell["trials"]]).items():
        names = [row["region"] for row in members[0]["trials"]]
        random = [_random_scores(cell) for cell in members]
        means, best = [float(np.mean(scores)) for scores in random], [max(s) for s in random]
        found[group] = {}
        for name in (name for name in names if not name.startswith(RANDOM)):
            scores = [_score(cell, name) for cell in members]
            above = [score - mean for score, mean in zip(scores, means, strict=True)]
            found[group][name] = {
                "score": mean_with_interval(members, scores, resamples),
                "above random": mean_with_interval(members, above, resamples),
                "better than all random": sum(map(float.__gt__, scores, best)),
            }
        found[group][RANDOM] = {"score": mean_with_interval(members, means, resamples)}
    return found


def _score(cell: Cell, region: str) -> float:
    return next(float(row["score"]) for row in cell["trials"] if row["region"] == region)


def _random_scores(cell: Cell) -> list[float]:
    return [row["score"] for row in cell["trials"] if row["region"].startswith(RANDOM)]
