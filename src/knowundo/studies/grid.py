"""The points of a grid: every combination of values of some keys of a recipe."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from knowundo.errors import BadInput
from knowundo.recipes.reading import load_recipe
from knowundo.recipes.yaml import parse_yaml

# Length of a point's name, from which the rest is told by a hash: it is a folder's name.
_LONGEST = 80


@dataclass(frozen=True)
class Point:
    """One run of a study.

    Attributes:
        name: Of its folder.
        values: Keys of the recipe, with what they are here.
    """

    name: str
    values: dict[str, Any]

    @property
    def sets(self) -> list[str]:
        """The assignments, as `--set` takes them; the values as JSON, which is YAML."""
        return [f"{key}={json.dumps(value)}" for key, value in self.values.items()]

    def setting(self) -> dict[str, Any]:
        """What the run shares with those of other seeds."""
        return {key: value for key, value in self.values.items() if key != "seed"}


def points_of(config: str | None, sets: Sequence[str], grid: Sequence[str]) -> list[Point]:
    """All points of a grid, in the order of its axes; the last one turns fastest.

    Args:
        config: A recipe file or a preset.
        sets: Assignments that all points share.
        grid: Assignments of lists, such as `seed=[0, 1, 2]`.

    Raises:
        BadInput: An axis is no list of different values, or a point is no recipe; names it.
    """
    axes = dict(_axis(text) for text in grid)
    if len(axes) < len(grid):
        raise BadInput("--grid: a key is named twice; give all its values in one list")
    if not axes:
        raise BadInput("--grid: no axis; give one, such as --grid 'seed=[0, 1, 2]'")
    found = []
    for values in product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        point = Point(_name(chosen), chosen)
        try:
            load_recipe(config, [*sets, *point.sets])
        except BadInput as error:
            raise BadInput(f"--grid, at {point.name}: {error}") from None
        found.append(point)
    return found


def _axis(text: str) -> tuple[str, list[Any]]:
    key, equals, listed = text.partition("=")
    values = parse_yaml(listed, f"--grid '{text}'")
    if not equals or not key.strip() or not isinstance(values, list) or not values:
        raise BadInput(f"--grid '{text}': not an axis; write KEY=[VALUE, …], as seed=[0, 1, 2]")
    if len({json.dumps(value, sort_keys=True, default=str) for value in values}) < len(values):
        raise BadInput(f"--grid '{text}': a value stands there twice; give each once")
    return key.strip(), values


def _name(values: dict[str, Any]) -> str:
    """A folder's name that tells the values, as far as there is room."""
    parts = [f"{key.split('.')[-1]}={_short(value)}" for key, value in values.items()]
    name = re.sub(r"[^\w.=+-]+", "-", ",".join(parts).replace(",", "+")).strip("-.")
    told = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
    return f"{name[:_LONGEST].strip('-.')}-{told[:6]}"


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("name") or value.get("preset") or value.get("method") or value
    return value if isinstance(value, str) else json.dumps(value, default=str)
