"""Whether unlearning in a located region beats random regions of as many parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from knowundo.localization.choosing import choose
from knowundo.modeling.regions import random_like
from knowundo.planting.testbed import Testbed
from knowundo.region_rule import RegionRule
from knowundo.scoring.teacher_forcing import token_accuracy
from knowundo.unlearning.early_stopping import StoppingRule
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import unlearn

PLANTED, RANDOM = "planted", "random"


@dataclass(frozen=True)
class TrialSettings:
    """How regions are compared by training in them.

    Attributes:
        localizers: Whose regions are compared, beside the planted tensors themselves.
        draws: Random regions of as many parameters.
        method: The loss.
        arguments: Of the loss.
        rates: Learning rates by kind of adaptation; of each region the best rate counts. In a kind
            without rates regions are not compared.
        epochs: Passes over the unlearn rows.
        batch_size: Unlearn rows per step.
        evaluations: How often the model is evaluated; the best evaluation counts.
        floor: Points of token accuracy on retention rows whose loss counts as half of retention.
    """

    localizers: tuple[str, ...] = ("reversion", "memflex")
    draws: int = 2
    method: str = "ascent_plus_descent"
    arguments: dict[str, Any] = field(default_factory=lambda: {"ascent": 0.4, "descent": 2.0})
    rates: dict[str, tuple[float, ...]] = field(default_factory=lambda: {"lora": (2e-3,)})
    epochs: int = 7
    batch_size: int = 10
    evaluations: int = 7
    floor: float = 10.0


def compare_regions(
    testbed: Testbed, scores: Mapping[str, Mapping[str, float]], settings: TrialSettings, seed: int
) -> list[dict[str, Any]]:
    """Unlearn in each region from the same memorized model.

    Args:
        testbed: Its model is the memorized one afterwards.
        scores: Of each localizer, by parameter name.
        settings: Of training.
        seed: Of random regions and batches.

    Returns:
        A row a region: its name, parameters, the best score, and accuracies at that step.
    """
    model = testbed.model
    sizes = {name: parameter.numel() for name, parameter in model.parameters().items()}
    size = sum(sizes[name] for name in testbed.planting.unlearn)
    known = {name: sizes[name] for name in testbed.planting.unlearn | testbed.planting.retention}
    rule = RegionRule(share=size / sum(known.values()), granularity="module")
    regions: dict[str, Iterable[str]] = {PLANTED: testbed.planting.unlearn}
    for localizer in settings.localizers:
        tensors = {name: torch.tensor(scores[localizer][name]) for name in known}
        regions[localizer] = choose(tensors, known, rule, localizer)
    for draw in range(settings.draws):
        drawn = random_like(testbed.planting.unlearn, known, 1000 * seed + draw)
        regions[f"{RANDOM}-{draw + 1}"] = drawn
    trained: dict[frozenset[str], dict[str, Any]] = {}  # regions may be the same
    for region in map(frozenset, regions.values()):
        if region not in trained:
            trained[region] = _trained(testbed, sorted(region), settings, seed)
    return [
        {"region": name, "parameters": sum(sizes[n] for n in region)} | trained[frozenset(region)]
        for name, region in regions.items()
    ]


def _trained(
    testbed: Testbed, region: list[str], settings: TrialSettings, seed: int
) -> dict[str, Any]:
    """What training in a region comes to, at the better of the rates."""
    rows, kept = testbed.rows["unlearn", "train"], testbed.rows["retention", "train"]
    start = Start(testbed.model, rows, {"retention": kept}, seed=seed)
    rule = StoppingRule(
        rows,
        testbed.rows["retention", "val"],  # training sees none of them
        testbed.unknown,
        settings.floor,
        settings.evaluations,
        patience=settings.evaluations,
    )
    found: list[dict[str, Any]] = []
    for lr in settings.rates[testbed.model.adaptation.kind]:
        done = unlearn(
            start,
            UnlearnSettings(
                method=settings.method,
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                accumulation=1,
                lr=lr,
                arguments=settings.arguments,
                region=region,
            ),
            rule=rule,
        )
        best = done.facts["best"]
        of_best = {key: best[key] for key in ("score", "forgotten", "lost", "step")}
        val = token_accuracy(testbed.model, testbed.rows["unlearn", "val"])
        found.append({"lr": lr, **of_best, "unlearn_val": val})
    start.restore()
    return max(found, key=lambda row: row["score"])
