"""localize(): which tensors store the unlearn scope and not the retention scope?

An adapter that knows the records has gradients in A and B, and a region is a set of tensors. Where
the base's own weights know them there are two cases. A fresh LoRA's B is zero, so A has no
gradient: B represents its module, and a region is a set of modules. Where all weights are trained,
each has its gradient, and few of these are in memory at a time (`held`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from knowundo.data.encoded import Encoded
from knowundo.errors import BadInput
from knowundo.localization.choosing import choose, choose_weights
from knowundo.localization.controls import Region, with_controls
from knowundo.localization.gradients import in_groups
from knowundo.localization.measuring import Found, Scoring, measure
from knowundo.localization.noise import noisy_copies
from knowundo.localization.probing import Probe
from knowundo.modeling import regions
from knowundo.modeling.model import Model
from knowundo.registry import get
from knowundo.storage.job import Job


@dataclass(frozen=True)
class LocalizeSettings:
    """How regions are located, and what they are compared with.

    Attributes:
        localizers: Names of registered localizers, with their arguments.
        copies: Noisy copies of each row (the paper averages 5, its code 3).
        batch_size: Rows per backward pass.
        draws: Random regions with as many parameters as each located one.
        seed: Seed of noise and draws.
        held: Parameters whose gradients are in memory at a time. If `None`, all.
    """

    localizers: Mapping[str, dict[str, Any]]
    copies: int
    batch_size: int
    draws: int
    seed: int
    held: int | None = None


def localize(
    model: Model,
    unlearn: Sequence[Encoded],
    retention: Sequence[Encoded],
    settings: LocalizeSettings,
    job: Job = Job(),
) -> dict[str, Any]:
    """Find regions, and the controls that any claim needs.

    Args:
        model: The memorized model; not changed. Beside a fresh LoRA its regions are whole modules.
        unlearn: Rows that must go.
        retention: Rows that must stay.
        settings: Localizers, noise and controls.
        job: Progress and checkpoint.

    Returns:
        `tensors`: of each measured tensor its name, place, size, cosine, magnitude and, where a
        localizer scores, scores;
        `regions`: name → parameter names, among them `everything` and `random-<n>`;
        `masks`: name → which weights of each tensor, of regions of rows, columns or weights;
        `parameters`: size of each region.

    Raises:
        BadInput: Unknown localizer or argument, or no tensor is in a localizer's region.
    """
    sizes = {name: parameter.numel() for name, parameter in model.parameters().items()}
    # Beside a fresh LoRA only B has a gradient: A's is B times something, and B is zero.
    fresh = model.is_fresh
    wanted = {name: size for name, size in sizes.items() if not fresh or "lora_B" in name}
    found = score_tensors(model, unlearn, retention, settings, wanted, job=job)
    shapes = {name: parameter.shape for name, parameter in model.parameters().items()}
    located: dict[str, Region] = {}
    for name, arguments in settings.localizers.items():
        entry = get("localizer", name)
        bound = entry.bind(arguments)
        if not entry.facts["needs"]:
            region = entry(found.measured, **bound)
        elif (rule := Scoring(entry, bound).rule).masks:
            masks = choose_weights(found.scores[name], shapes, rule, name)
            located[name] = Region(sorted(masks), masks, rule.granularity)
            continue
        else:
            region = choose(found.scores[name], wanted, rule, name)
        whole = regions.with_whole_modules(region, sizes) if fresh else sorted(region)
        located[name] = Region(whole)
    draws, seed = settings.draws, settings.seed
    controlled = with_controls(located, shapes, draws=draws, seed=seed, whole_modules=fresh)
    return {"tensors": _table(found, wanted), **controlled}


def score_tensors(
    model: Model,
    unlearn: Sequence[Encoded],
    retention: Sequence[Encoded],
    settings: LocalizeSettings,
    wanted: Mapping[str, int],
    *,
    job: Job = Job(),
) -> Found:
    """Measure tensors, and score them by every localizer that scores.

    Args:
        model: The memorized model; not changed.
        unlearn: Rows that must go.
        retention: Rows that must stay.
        settings: Localizers and noise.
        wanted: Parameters of each tensor that is measured, by name.
        job: Progress and checkpoint.

    Raises:
        BadInput: Unknown localizer or argument, or one that cannot score this model.
    """
    vocabulary = model.causal_lm().get_input_embeddings().num_embeddings  # type: ignore[operator]
    copies, seed = settings.copies, settings.seed
    noisy = {
        scope: noisy_copies(rows, copies=copies, vocabulary=vocabulary, seed=seed + number)
        for number, (scope, rows) in enumerate((("unlearn", unlearn), ("retention", retention)))
    }
    bound = {name: get("localizer", name) for name in settings.localizers}
    scorings = [
        Scoring(entry, entry.bind(settings.localizers[name]))
        for name, entry in bound.items()
        if entry.facts["needs"]
    ]
    _check_base(model, scorings)
    _check_masks(model, scorings)
    of_tensors = [scoring for scoring in scorings if "model" not in scoring.needs]
    groups = list(in_groups(wanted, settings.held))
    found = measure(model, noisy, groups, of_tensors, batch_size=settings.batch_size, job=job)
    probe = Probe(model, unlearn, retention, list(wanted))
    for scoring in scorings:
        if "model" in scoring.needs:
            scores = scoring.score(probe)
            found.scores[scoring.entry.name] = {n: torch.tensor(s) for n, s in scores.items()}
    return found


def _check_base(model: Model, scorings: Sequence[Scoring]) -> None:
    """Refuse a localizer that needs the base's weights where nothing was memorized into others.

    Raises:
        BadInput: Names the localizer.
    """
    needing = [scoring.entry.name for scoring in scorings if "base" in scoring.needs]
    own, initial = model.parameters(), model.initial.tensors
    if needing and all(torch.equal(own[name].cpu(), value) for name, value in initial.items()):
        raise BadInput(
            f"localize.{needing[0]}: needs the weights before the records were memorized, and the "
            "base itself knows them; choose a localizer without the need 'base'"
        )


def _check_masks(model: Model, scorings: Sequence[Scoring]) -> None:
    """Refuse a region of parts of tensors where there can be none.

    Raises:
        BadInput: Names the localizer and the granularity.
    """
    for scoring in scorings:
        scoring.check()
        if scoring.rule.masks and model.is_fresh:
            raise BadInput(
                f"localize.{scoring.entry.name}: granularity {scoring.rule.granularity}: beside a "
                "LoRA without effect yet regions are whole modules; choose tensor or module"
            )


def _table(found: Found, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """What is written of each measured tensor; its scores only if a localizer scores."""
    measured = found.measured
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            **regions.place(name),
            "size": sizes[name],
            "cosine": measured.cosine(name),
            "magnitude": measured.magnitude(name),
        }
        for name in sizes
    ]
    for row in rows if found.scores else ():
        row["scores"] = {
            localizer: float(scores[row["name"]].double().mean())
            for localizer, scores in found.scores.items()
        }
    return rows
