"""What located regions are compared with: random ones of the same size, and everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch

from knowundo.modeling import regions
from knowundo.modeling.regions import place
from knowundo.region_rule import Granularity

Masks = dict[str, torch.Tensor]
Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True)
class Region:
    """A located region.

    Attributes:
        names: Of its tensors, sorted.
        masks: Which weights of a tensor are in the region, where not all are.
        granularity: What of a tensor a mask takes or leaves as a whole.
    """

    names: list[str]
    masks: Masks = field(default_factory=dict)
    granularity: Granularity = "tensor"

    def parameters(self, shapes: Shapes) -> int:
        """Number of weights in the region."""
        return sum(
            int(self.masks[name].sum()) if name in self.masks else shapes[name].numel()
            for name in self.names
        )


def with_controls(
    located: Mapping[str, Region],
    shapes: Shapes,
    *,
    draws: int,
    seed: int,
    whole_modules: bool = False,
) -> dict[str, Any]:
    """Add to located regions those that they are compared with: random ones, and everything.

    Args:
        located: By name.
        shapes: Of every trainable tensor, by name.
        draws: Random regions with as many parameters as each located one.
        seed: Seed of the draws.
        whole_modules: Draw whole modules instead of tensors.

    Returns:
        `regions`: name → parameter names; `masks`: name → masks, of regions that have any;
        `parameters`: size of each region.
    """
    found = dict(located)
    for name, region in located.items():
        prefix = "random" if len(located) == 1 else f"random-{name}"
        for draw in range(draws):
            control = f"{prefix}-{draw + 1}"
            found[control] = _random(region, shapes, seed + draw, whole_modules=whole_modules)
    # Whatever a located region achieves is compared with training everything.
    found[regions.EVERYTHING] = Region(sorted(shapes))
    return {
        "regions": {name: region.names for name, region in found.items()},
        "masks": {name: region.masks for name, region in found.items() if region.masks},
        "parameters": {name: region.parameters(shapes) for name, region in found.items()},
    }


def _random(region: Region, shapes: Shapes, seed: int, *, whole_modules: bool) -> Region:
    """A random region with exactly as many parameters; of masks, in tensors of the same shape."""
    if not region.masks:
        sizes = {name: shape.numel() for name, shape in shapes.items()}
        return Region(regions.random_like(region.names, sizes, seed, whole_modules=whole_modules))
    rng, generator = Random(seed), torch.Generator().manual_seed(seed)
    kinds: dict[tuple[str, torch.Size], list[str]] = {}
    for name in sorted(shapes):
        kinds.setdefault((place(name)["tensor"], shapes[name]), []).append(name)
    drawn: Masks = {}
    for names in kinds.values():
        chosen = [name for name in names if name in region.names]
        for name, other in zip(chosen, rng.sample(names, len(chosen)), strict=True):
            mask = region.masks.get(name, torch.ones(shapes[name], dtype=torch.bool))
            drawn[other] = _shuffled(mask, region.granularity, generator)
    return Region(sorted(drawn), drawn, region.granularity)


def _shuffled(
    mask: torch.Tensor, granularity: Granularity, generator: torch.Generator
) -> torch.Tensor:
    """The same rows, columns or weights in other places of a tensor."""
    if granularity == "weight" or mask.ndim < 2:
        return mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view_as(mask)
    axis = 0 if granularity == "row" else 1
    return mask.index_select(axis, torch.randperm(mask.shape[axis], generator=generator))
