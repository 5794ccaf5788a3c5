"""Where each scope is planted: sets of modules, most of them disjoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random

from knowundo.localization.choosing import module_name
from knowundo.modeling.regions import place

# A localizer is chosen on these, and what is reported of it comes from the others.
CHOSEN_ON = ("early", "attention")


@dataclass(frozen=True)
class Planting:
    """Which tensors learn which scope.

    Attributes:
        name: Of the planting.
        unlearn: Parameters that unlearn rows train; retention rows too where they are in both.
        retention: Parameters that retention rows train.
    """

    name: str
    unlearn: frozenset[str]
    retention: frozenset[str]


def plantings(names: list[str], seed: int) -> dict[str, Planting]:
    """All plantings of a model.

    early, late: the lower or the upper half of the layers learns the unlearn scope, the other half
    retention. attention, mlp: so by the kind of module. spread: a random half of all modules.
    few: a random quarter of them. overlap: a random third learns the unlearn scope, another third
    retention, and the rest both.

    Args:
        names: Parameters of linear layers inside decoder layers.
        seed: Of the random ones.
    """
    modules: dict[str, list[str]] = {}
    for name in names:
        modules.setdefault(module_name(name), []).append(name)
    layers = [place(name)["layer"] for name in names]
    middle = (min(layers) + max(layers) + 1) / 2
    order = Random(seed).sample(sorted(modules), len(modules))

    def is_early(module: str) -> bool:
        return bool(place(modules[module][0])["layer"] < middle)

    def is_attention(module: str) -> bool:
        return "attn" in module

    rules: Mapping[str, Callable[[str], bool]] = {
        "early": is_early,
        "late": lambda module: not is_early(module),
        "attention": is_attention,
        "mlp": lambda module: not is_attention(module),
        "spread": set(order[: len(order) // 2]).__contains__,
        "few": set(order[: len(order) // 4]).__contains__,
    }

    def tensors(chosen: Iterable[str]) -> frozenset[str]:
        return frozenset(name for module in chosen for name in modules[module])

    found = {}
    for name, learns_unlearn in rules.items():
        unlearn = tensors(module for module in modules if learns_unlearn(module))
        found[name] = Planting(name, unlearn, frozenset(names) - unlearn)
    third = len(order) // 3
    found["overlap"] = Planting("overlap", tensors(order[third:]), tensors(order[:-third]))
    return found
