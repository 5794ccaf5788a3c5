"""The recipe that an output directory holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from knowundo.errors import BadInput
from knowundo.recipes.yaml import parse_yaml
from knowundo.storage.files import read_text


def read_recipe_file(file: Path) -> dict[str, Any]:
    """The recipe that a run's directory holds."""
    held = parse_yaml(read_text(file), str(file))
    if not isinstance(held, dict) or not {"given", "effective"} <= set(held):
        raise BadInput(f"{file}: not a run's recipe; choose another directory with --out")
    return held


def amended_recipe(held: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """A held recipe with the keys that may change later: a given region, and further models.

    What is made of them is known by its inputs, so nothing old is taken for it.
    """
    amended = dict(held)
    for section, key in (("localize", "adopt"), ("evaluate", "models")):
        if isinstance(held.get(section), dict):
            amended[section] = held[section] | {key: wanted[section][key]}
    return amended
