"""The space that a sweep searches: ranges of settings, and regions by their size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from knowundo.entry import Entry
from knowundo.errors import BadInput, unknown
from knowundo.localization.gradients import Measured
from knowundo.modeling import regions
from knowundo.recipes.schema import Plan, Recipe
from knowundo.recipes.yaml import parse_yaml
from knowundo.registry import get
from knowundo.storage.files import read_text

# A rate is searched from a tenth to ten times the variant's own, a weight from a quarter to four
# times; a region from a tenth of each localizer's order to nine tenths.
RATE, WEIGHT, SIZE = 10.0, 4.0, (0.1, 0.9)


LR, REGION = "lr", "region"
# A localizer that has these arguments can make a region of any size from what it measured.
_QUANTILES = ("cosine_quantile", "magnitude_quantile")
_ABSOLUTE = ("mu", "sigma")


@dataclass(frozen=True)
class Range:
    """Where a number is searched.

    Attributes:
        low: lowest value.
        high: highest value.
        own: the variant's own value, tried first if it is in the range.
        log: True if it is searched by its logarithm.
    """

    low: float
    high: float
    own: float
    log: bool = True

    def __str__(self) -> str:
        return f"{self.low:.3g} … {self.high:.3g}"


def read_ranges(file: Path) -> dict[str, tuple[float, float]]:
    """Read a YAML mapping such as `{lr: [1e-5, 1e-3], region: [0.2, 0.8]}`.

    Raises:
        BadInput: something else.
    """
    given = parse_yaml(read_text(file), str(file))
    if not isinstance(given, dict):
        raise BadInput(f"{file}: expected a mapping such as {{lr: [1e-5, 1e-3]}}")
    for name, ends in given.items():
        numbers = isinstance(ends, list) and [
            end for end in ends if isinstance(end, int | float) and not isinstance(end, bool)
        ]
        if not numbers or len(ends) != 2 or len(numbers) != 2:
            raise BadInput(f"{file}: {name}: expected two numbers, such as [1e-5, 1e-3]")
    return {str(name): (float(low), float(high)) for name, (low, high) in given.items()}


def weights(method: Entry) -> list[str]:
    """Hyper-parameters of a method that weigh its loss: numbers that `prepare` does not read."""
    hints = get_type_hints(method.function)
    prepared = method.prepare_arguments(method.arguments)
    return [n for n in method.arguments if hints.get(n) is float and n not in prepared]


def is_sized(recipe: Recipe, plan: Plan) -> bool:
    """True if the variant's region was searched for, so that it can have another size."""
    localizers = recipe.localize.localizers
    if plan.region not in localizers or recipe.localize.adopt is not None:
        return False
    return set(_QUANTILES) <= set(get("localizer", plan.region).arguments)


def check_ranges(recipe: Recipe, plan: Plan, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse ranges that cannot be searched, before anything is computed.

    Args:
        recipe: of the run.
        plan: the variant whose settings are searched.
        ranges: low and high ends by name.

    Raises:
        BadInput: a range is unknown, reversed, or out of bounds.
    """
    method = get("method", plan.method)
    known = [LR, *weights(method), *([REGION] if is_sized(recipe, plan) else [])]
    for name, (low, high) in ranges.items():
        if name not in known:
            raise unknown(f"range of variant {plan.name}", name, known)
        if not low <= high:
            raise BadInput(f"range {name}: {low:g} is more than {high:g}; swap them")
        if name == REGION and not (low >= 0 and high <= 1):
            raise BadInput(f"range {name}: a share, so between 0 and 1, not [{low:g}, {high:g}]")
        if name != REGION and low <= 0:
            raise BadInput(f"range {name}: searched by its logarithm, so above 0, not {low:g}")
        if name not in (LR, REGION):
            for end in (low, high):
                method.bind(plan.arguments | {name: end})


def derive_space(
    method: Entry,
    arguments: Mapping[str, Any],
    *,
    rate: float,
    size: float | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Range]:
    """Where each number is searched, around a variant's own settings.

    Args:
        method: its weights are searched: see `weights`; one that is 0 stays 0. An end that the
            method does not take is drawn in to the variant's own value.
        arguments: of the method, bound.
        rate: the variant's learning rate.
        size: size of the variant's region, as `region_of_size` means it. If `None`, the region is
            fixed.
        ranges: low and high ends that replace the derived ones. A weight that is 0 is searched
            too if it has a range.

    Returns:
        `lr`, weights and `region`, in this order.
    """
    given = ranges or {}
    space = {LR: Range(rate / RATE, rate * RATE, rate)}
    for name in weights(method):
        own = arguments[name]
        if name in given or own > 0:
            ends = (own / WEIGHT, own * WEIGHT)
            low, high = (v if _takes(method, arguments, name, v) else own for v in ends)
            space[name] = Range(low, high, own)
    if size is not None:
        space[REGION] = Range(*SIZE, size, log=False)
    for name, where in space.items():
        low, high = given.get(name, (four_digits(where.low), four_digits(where.high)))
        space[name] = Range(low, high, where.own, where.log)
    return space


def _takes(method: Entry, arguments: Mapping[str, Any], name: str, value: float) -> bool:
    try:
        method.bind({**arguments, name: value})
    except BadInput:
        return False
    return True


def region_of_size(
    size: float,
    *,
    localizer: Entry,
    arguments: Mapping[str, Any],
    measured: Measured,
    known: Sequence[str],
    whole_modules: bool,
) -> list[str]:
    """A localizer's region of another size, from what it measured; no gradients.

    The cosine may be among the lowest `size` of all, and the magnitude among the highest: so a
    larger region holds every smaller one, and 0.5 is the localizer's own default.

    Args:
        size: share of tensors that pass each threshold, in [0, 1].
        localizer: one with quantiles.
        arguments: its others; absolute thresholds give way to the quantiles.
        measured: cosine and magnitude of each tensor.
        known: all parameters that can be trained.
        whole_modules: a fresh LoRA's B speaks for its module.

    Raises:
        BadInput: no tensor passes.
    """
    others = {key: value for key, value in arguments.items() if key not in _ABSOLUTE}
    quantiles = dict(zip(_QUANTILES, (size, 1 - size), strict=True))
    found = localizer(measured, **localizer.bind(others | quantiles))
    return regions.with_whole_modules(found, known) if whole_modules else sorted(found)


def nearest_size(region: Callable[[float], list[str]], sizes: Mapping[str, int], own: int) -> float:
    """The size, in steps of 0.05, whose region is nearest to `own` parameters; 0.5 wins ties.

    Args:
        region: size → parameter names.
        sizes: parameter name → number of its elements.
        own: number of parameters to come near to.
    """
    low, high = SIZE
    steps = round((high - low) / 0.05)

    def off(size: float) -> tuple[float, float]:
        try:
            there = sum(sizes[name] for name in region(size))
        except BadInput:  # no tensor
            there = 0
        return abs(there - own), abs(size - 0.5)

    return min((round(low + 0.05 * step, 2) for step in range(steps + 1)), key=off)


def four_digits(value: float) -> float:
    """Four digits of a number: enough to train with, and to copy by hand."""
    return float(f"{value:.4g}")
