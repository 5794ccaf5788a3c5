"""One planted model: every localizer's scores against the truth."""

from __future__ import annotations

from typing import Any

from knowundo.entry import Entry
from knowundo.errors import BadInput
from knowundo.localization.gradients import Measured
from knowundo.localization.search import LocalizeSettings, score_tensors
from knowundo.planting.ranking import judged
from knowundo.planting.testbed import Testbed
from knowundo.planting.trials import TrialSettings, compare_regions
from knowundo.registry import entries

# A localizer with these arguments finds regions of any size: a tensor's score is the number of
# sizes whose region holds it.
QUANTILES = ("cosine_quantile", "magnitude_quantile")
SIZES = tuple(n / 20 for n in range(1, 20))


def scored_localizers() -> dict[str, Entry]:
    """Localizers that rank tensors: those that score, and those with quantiles."""
    found = entries("localizer").items()
    return {n: e for n, e in found if e.facts["needs"] or set(QUANTILES) <= set(e.arguments)}


def localizer_scores(testbed: Testbed, copies: int, seed: int) -> dict[str, dict[str, float]]:
    """Scores of every localizer that ranks tensors, by parameter name.

    Args:
        testbed: Not changed.
        copies: Noisy copies of each row.
        seed: Of the noise.
    """
    model, known = testbed.model, scored_localizers()
    sizes = {name: parameter.numel() for name, parameter in model.parameters().items()}
    settings = LocalizeSettings(
        {name: {} for name in known}, copies=copies, batch_size=32, draws=0, seed=seed
    )
    rows = testbed.rows
    found = score_tensors(
        model, rows["unlearn", "train"], rows["retention", "train"], settings, sizes
    )
    scores = {
        localizer: {name: float(value) for name, value in of_tensors.items()}
        for localizer, of_tensors in found.scores.items()
    }
    graded = {n: _graded(entry, found.measured) for n, entry in known.items() if n not in scores}
    return dict(sorted((scores | graded).items()))


def _graded(entry: Entry, measured: Measured) -> dict[str, float]:
    """How many sizes of region hold each tensor; the same sizes as in a sweep."""
    count = dict.fromkeys(measured.names, 0.0)
    for size in SIZES:
        quantiles = dict(zip(QUANTILES, (size, 1 - size), strict=True))
        try:
            region = entry(measured, **entry.bind(quantiles))
        except BadInput:  # no tensor passes so narrow a threshold
            continue
        for name in region:
            count[name] += 1
    return count


def measure_cell(
    testbed: Testbed, *, copies: int, seed: int, trial: TrialSettings | None
) -> dict[str, Any]:
    """AUC and average precision of every localizer, and what its region is worth.

    Args:
        testbed: Its model is the memorized one afterwards.
        copies: Noisy copies of each row.
        seed: Of noise, random regions and batches.
        trial: How regions are compared. If `None`, they are not.
    """
    scores = localizer_scores(testbed, copies, seed)
    planted, kind = testbed.planting.unlearn, testbed.model.adaptation.kind
    return {
        "planting": testbed.planting.name,
        "kind": kind,
        "seed": seed,
        "tensors": len(next(iter(scores.values()))),
        "planted": len(planted),
        "known": testbed.known,
        "unknown": testbed.unknown,
        "steps": testbed.steps,
        "localizers": {name: judged(values, planted) for name, values in scores.items()},
        "trials": compare_regions(testbed, scores, trial, seed)
        if trial is not None and kind in trial.rates
        else [],
    }
