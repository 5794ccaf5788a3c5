"""Scores every localizer against planted truth, and trains in what it finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from knowundo.planting.cells import measure_cell, scored_localizers
from knowundo.planting.plantings import CHOSEN_ON
from knowundo.planting.summary import summarize, summarize_trials
from knowundo.planting.testbed import TestbedSettings, plant
from knowundo.planting.trials import TrialSettings
from knowundo.progress import Reporter
from knowundo.storage.environment import surroundings
from knowundo.storage.files import fingerprint, read_json, write_json

RESULT = "planted.json"


@dataclass(frozen=True)
class StudySettings:
    """What is planted, and how localizers are asked.

    Attributes:
        plantings: Names of plantings, see `plantings`.
        kinds: `lora`, `full` or both.
        seeds: Each makes other people, another LoRA and other random plantings.
        testbed: How scopes are planted.
        trial: How regions are compared by training in them. If `None`, they are not.
        copies: Noisy copies of each row.
        resamples: Resamples of the plantings for every interval.
    """

    plantings: tuple[str, ...] = (
        "early", "attention", "late", "mlp", "spread", "few", "overlap",
    )  # fmt: skip
    kinds: tuple[str, ...] = ("full", "lora")
    seeds: tuple[int, ...] = (0, 1)
    testbed: TestbedSettings = field(default_factory=TestbedSettings)
    trial: TrialSettings | None = field(default_factory=TrialSettings)
    copies: int = 2
    resamples: int = 2000


def score_localizers(
    out: Path, settings: StudySettings = StudySettings(), reporter: Reporter = Reporter()
) -> dict[str, Any]:
    """Plant, localize, compare; write `planted.json`.

    Each planted model's result is written at once, so that a study that was killed resumes.

    Args:
        out: A directory, created if needed.
        settings: Of the study.
        reporter: Tells the user what happens.

    Returns:
        `summary`: by group of plantings and localizer the mean AUC and average precision with
        intervals; `trials`: what regions were worth; `cells`: each planted model; and settings,
        versions and hardware.
    """
    planned = [
        (k, p, s) for s in settings.seeds for k in settings.kinds for p in settings.plantings
    ]
    cells = []
    with reporter.task("planted truth") as progress:
        for number, (kind, planting, seed) in enumerate(planned, start=1):
            cells.append(_cell(out, kind, planting, seed, settings))
            progress(number, len(planned))
    result = {
        "settings": asdict(settings),
        "chosen_on": list(CHOSEN_ON),
        **surroundings(),
        "summary": summarize(cells, settings.resamples),
        "trials": summarize_trials(cells, settings.resamples),
        "cells": cells,
    }
    write_json(out / RESULT, result)
    return result


def _cell(
    out: Path, kind: str, planting: str, seed: int, settings: StudySettings
) -> dict[str, Any]:
    """The result of one planted model; read, if it is there and made of the same settings."""
    file = out / "planted" / f"{kind}-{planting}-{seed}.json"
    trial = None if settings.trial is None else asdict(settings.trial)
    sources = {name: entry.source for name, entry in scored_localizers().items()}
    made_of = fingerprint(
        [asdict(settings.testbed), trial, settings.copies, kind, planting, seed, sources]
    )
    held: dict[str, Any] = read_json(file) if file.is_file() else {}
    if held.get("made_of") == made_of:
        return held
    testbed = plant(planting, kind, seed, settings.testbed)
    found = measure_cell(testbed, copies=settings.copies, seed=seed, trial=settings.trial)
    write_json(file, {"made_of": made_of, **found})
    return read_json(file)
