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

from knowundo.data.encoded import Encoded
from knowundo.localization.gradients import measure
from knowundo.localization.noise import noisy_copies
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
    """Find regions by gradients, and the controls that any claim needs.

    Args:
        model: The memorized model; not changed. Beside a fresh LoRA its regions are whole modules.
        unlearn: Rows that must go.
        retention: Rows that must stay.
        settings: Localizers, noise and controls.
        job: Progress and checkpoint.

    Returns:
        `tensors`: of each measured tensor its name, place, size, cosine and magnitude;
        `regions`: name → parameter names, among them `everything` and `random-<n>`;
        `parameters`: size of each region.

    Raises:
        BadInput: Unknown localizer or argument, or no tensor is in a localizer's region.
    """
    vocabulary = model.causal_lm().get_input_embeddings().num_embeddings  # type: ignore[operator]
    copies, seed = settings.copies, settings.seed
    noisy = {
        scope: noisy_copies(rows, copies=copies, vocabulary=vocabulary, seed=seed + number)
        for number, (scope, rows) in enumerate((("unlearn", unlearn), ("retention", retention)))
    }
    sizes = {name: parameter.numel() for name, parameter in model.parameters().items()}
    # Beside a fresh LoRA only B has a gradient: A's is B times something, and B is zero.
    fresh = model.is_fresh
    wanted = {name: size for name, size in sizes.items() if not fresh or "lora_B" in name}
    measured = measure(
        model, noisy, wanted, batch_size=settings.batch_size, held=settings.held, job=job
    )
    located: dict[str, list[str]] = {}
    for name, arguments in settings.localizers.items():
        entry = get("localizer", name)
        region = entry(measured, **entry.bind(arguments))
        located[name] = regions.with_whole_modules(region, sizes) if fresh else sorted(region)
    tensors = [
        {
            "name": name,
            **regions.place(name),
            "size": sizes[name],
            "cosine": measured.cosine(name),
            "magnitude": measured.magnitude(name),
        }
        for name in wanted
    ]
    controlled = with_controls(located, sizes, draws=settings.draws, seed=seed, whole_modules=fresh)
    return {"tensors": tensors, **controlled}


def with_controls(
    located: dict[str, list[str]],
    sizes: dict[str, int],
    *,
    draws: int,
    seed: int,
    whole_modules: bool = False,
) -> dict[str, Any]:
    """Add to located regions those that they are compared with: random ones, and everything.

    Args:
        located: Region name → parameter names.
        sizes: Parameters of every trainable tensor, by name.
        draws: Random regions with as many parameters as each located one.
        seed: Seed of the draws.
        whole_modules: Draw whole modules instead of tensors.

    Returns:
        `regions`: name → parameter names; `parameters`: size of each region.
    """
    found = dict(located)
    for name, region in located.items():
        prefix = "random" if len(located) == 1 else f"random-{name}"
        for draw in range(draws):
            drawn = regions.random_like(region, sizes, seed + draw, whole_modules=whole_modules)
            found[f"{prefix}-{draw + 1}"] = drawn
    # Whatever a located region achieves is compared with training everything.
    found[regions.EVERYTHING] = sorted(sizes)
    parameters = {name: sum(sizes[t] for t in region) for name, region in found.items()}
    return {"regions": found, "parameters": parameters}
