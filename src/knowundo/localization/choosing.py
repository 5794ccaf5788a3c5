"""From scores to a region: the units with the highest scores, up to a share of the parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from knowundo.errors import BadInput
from knowundo.modeling import regions
from knowundo.region_rule import RegionRule


def kind_of(name: str) -> str:
    """Kinds of tensors are ranked separately: gradients of A and B of a LoRA differ in size."""
    return "lora_B" if "lora_B" in name else "other"


def module_name(name: str) -> str:
    """The layer that a parameter belongs to: of a LoRA's A and B, of a weight and its bias."""
    return regions.module_of(name) if ".lora_" in name else name.rpartition(".")[0]


def choose(
    scores: Mapping[str, torch.Tensor], sizes: Mapping[str, int], rule: RegionRule, localizer: str
) -> set[str]:
    """Tensors, or all tensors of modules, with the highest scores.

    Of each kind of tensor the same share is taken. A unit that would exceed the share ends the
    choice, but the first is always in the region.

    Args:
        scores: One score a tensor, by parameter name; high for the unlearn scope.
        sizes: Parameters of each tensor.
        rule: Share and granularity.
        localizer: For the error message.

    Raises:
        BadInput: All units of a kind have the same score, so that none can be preferred.
    """
    units: dict[str, list[str]] = {}
    for name in scores:
        units.setdefault(module_name(name) if rule.granularity == "module" else name, []).append(
            name
        )
    kinds: dict[str, list[str]] = {}
    for unit, names in units.items():
        kind = "module" if rule.granularity == "module" else kind_of(names[0])
        kinds.setdefault(kind, []).append(unit)
    region: set[str] = set()
    for members in kinds.values():
        size = {unit: sum(sizes[name] for name in units[unit]) for unit in members}
        value = {
            unit: sum(float(scores[n]) * sizes[n] for n in units[unit]) / size[unit]
            for unit in members
        }
        if len(members) > 1 and len(set(value.values())) == 1:
            raise BadInput(
                f"localize.{localizer}: every {rule.granularity} has the same score, so none can "
                "be preferred; choose another localizer"
            )
        left = rule.share * sum(size.values())
        for number, unit in enumerate(sorted(members, key=lambda unit: (-value[unit], unit))):
            left -= size[unit]
            if left < -0.5 and number:  # a share of whole numbers is rounded
                break
            region.update(units[unit])
    return region


def choose_weights(
    scores: Mapping[str, torch.Tensor],
    shapes: Mapping[str, torch.Size],
    rule: RegionRule,
    localizer: str,
) -> dict[str, torch.Tensor]:
    """Rows, columns or single weights with the highest scores, of each kind of tensor alike.

    All scores of a kind are compared, in whichever tensors they are.

    Args:
        scores: One score a unit, by parameter name, in a shape that broadcasts to the tensor's.
        shapes: Of the tensors.
        rule: Share and granularity.
        localizer: For the error message.

    Returns:
        By parameter name, which of its weights are in the region; tensors without any are left out.

    Raises:
        BadInput: All units of a kind have the same score, so that none can be preferred.
    """
    kinds: dict[str, list[str]] = {}
    for name in scores:
        kinds.setdefault(kind_of(name), []).append(name)
    masks: dict[str, torch.Tensor] = {}
    for names in kinds.values():
        values = torch.cat([scores[name].flatten() for name in names])
        if len(values) > 1 and bool((values == values[0]).all()):
            raise BadInput(
                f"localize.{localizer}: every {rule.granularity} has the same score, so none can "
                "be preferred; choose another localizer"
            )
        weights = [shapes[name].numel() // scores[name].numel() for name in names]
        counts = [scores[name].numel() for name in names]
        size = torch.tensor(weights).repeat_interleave(torch.tensor(counts))
        order = values.argsort(descending=True, stable=True)
        inside = torch.zeros(len(values), dtype=torch.bool)
        inside[order] = size[order].cumsum(0) <= rule.share * int(size.sum())
        inside[order[0]] = True
        for name, part in zip(names, inside.split(counts), strict=True):
            if bool(part.any()):
                whole = part.view(scores[name].shape).expand(shapes[name])
                masks[name] = whole.contiguous()
    return masks
