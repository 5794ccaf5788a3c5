"""Regions: sets of parameter names that training may change, in KnowUnDo's JSON."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from knowundo.errors import BadInput
from knowundo.storage.files import read_json

EVERYTHING = "everything"


def read_region(path: Path, known: Iterable[str]) -> list[str]:
    """Read KnowUnDo's `located_region_*.json`: a list of parameter names.

    Raises:
        BadInput: not a non-empty list of names, or a name that the model does not have.
    """
    names = read_names(path)
    if unknown := sorted(set(names) - set(known)):
        raise BadInput(
            f"{path}: the model has no parameter '{unknown[0]}'; take the region of this model, "
            "or localize it"
        )
    return names


def read_names(path: Path) -> list[str]:
    """The names in a region's file, sorted, whichever model they are of.

    Raises:
        BadInput: not a non-empty list of names.
    """
    names = read_json(path)
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise BadInput(f"{path}: expected a JSON list of parameter names")
    return sorted(names)


def overlap(first: Iterable[str], second: Iterable[str]) -> dict[str, dict[str, float]]:
    """Jaccard index of two regions: of all tensors, and by module and by layer.

    |both| / |either|, 1 where they are the same; groups that neither touches are left out.

    Returns:
        `all`, `module` and `layer`, each group → index in [0, 1].
    """
    one, other = set(first), set(second)

    def jaccard(names: set[str]) -> float:
        return len(one & other & names) / len(names)

    groups: dict[str, dict[str, set[str]]] = {"all": {}, "module": {}, "layer": {}}
    for name in sorted(one | other):
        where = place(name)
        layer = "outside" if where["layer"] is None else str(where["layer"])
        for kind, group in (("all", "all"), ("module", where["module"]), ("layer", layer)):
            groups[kind].setdefault(group, set()).add(name)
    return {
        kind: {group: jaccard(names) for group, names in found.items()}
        for kind, found in groups.items()
    }


def random_like(
    region: Iterable[str], sizes: dict[str, int], seed: int, *, whole_modules: bool = False
) -> list[str]:
    """A random region with exactly as many parameters: as many tensors of each kind and size.

    The kind counts because A and B of a LoRA can have one size and are chosen separately.

    Args:
        region: names to match.
        sizes: parameters of every trainable tensor, by name.
        seed: of the draw.
        whole_modules: draw modules, with all their tensors, instead of tensors.
    """
    rng, chosen = Random(seed), set(region)
    units: dict[str, list[str]] = {}
    for name in sorted(sizes):
        units.setdefault(module_of(name) if whole_modules else name, []).append(name)
    kinds = {
        unit: tuple((place(name)["tensor"], sizes[name]) for name in names)
        for unit, names in units.items()
    }
    drawn: list[str] = []
    for kind in sorted(set(kinds.values())):
        pool = sorted(unit for unit in units if kinds[unit] == kind)
        for unit in rng.sample(pool, sum(units[unit][0] in chosen for unit in pool)):
            drawn += units[unit]
    return sorted(drawn)


def module_of(name: str) -> str:
    """What A and B of one LoRA have in common: the name before them."""
    return name.split(".lora_")[0]


def with_whole_modules(region: Iterable[str], known: Iterable[str]) -> list[str]:
    """Every parameter of the modules that a region touches."""
    touched = {module_of(name) for name in region}
    return sorted(name for name in known if module_of(name) in touched)


def place(name: str) -> dict[str, Any]:
    """Layer number, module and tensor of a parameter name, for tables and heat maps."""
    parts = name.split(".")
    layer = next((int(part) for part in parts if part.isdigit()), None)
    tensor = next((part for part in parts if part.startswith("lora_")), parts[-1])
    return {"layer": layer, "module": parts[parts.index(tensor) - 1], "tensor": tensor}
