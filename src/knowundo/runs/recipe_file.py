"""The recipe that an output directory holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from knowundo.errors import BadInput
from knowundo.recipes.reading import differing_keys
from knowundo.recipes.yaml import parse_yaml
from knowundo.storage.files import read_text, write_text

RECIPE = "recipe.yaml"


def read_recipe_file(file: Path) -> dict[str, Any]:
    """The recipe that a run's directory holds."""
    held = parse_yaml(read_text(file), str(file))
    if not isinstance(held, dict) or not {"given", "effective"} <= set(held):
        raise BadInput(f"{file}: not a run's recipe; choose another directory with --out")
    return held


def amended_recipe(held: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """A held recipe with the keys that may change later: a region, further models, and attacks.

    What is made of them is known by its inputs, so nothing old is taken for it.
    """
    amended = dict(held)
    later = (("localize", "adopt"), ("evaluate", "models"), ("evaluate", "attacks"))
    for section, key in later:
        if isinstance(held.get(section), dict) and key in wanted[section]:
            amended[section] = amended[section] | {key: wanted[section][key]}
    return amended


def refuse_other_recipe(out: Path, effective: dict[str, Any]) -> None:
    """Refuse a directory that holds a run of another recipe.

    Args:
        out: The directory, which need not exist.
        effective: The whole recipe with its defaults.

    Raises:
        BadInput: It is a file, or another recipe's; names the first key that differs.
    """
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out}: is a file; choose another directory with --out")
    if not (out / RECIPE).exists():
        return
    held = amended_recipe(read_recipe_file(out / RECIPE)["effective"], effective)
    # A list is named only: its values may be long, such as all planned methods.
    for key, was, now in differing_keys(held, effective):
        different = f"{key} differs" if isinstance(was, list) else f"{key} is {was}, not {now}"
        raise BadInput(
            f"{out}: holds a run of another recipe ({different}); "
            "choose another directory with --out, or remove this one"
        )


def write_recipe_file(out: Path, given: dict[str, Any], effective: dict[str, Any]) -> bool:
    """Write a recipe into a directory, unless it is there already.

    Args:
        out: The directory.
        given: The keys as the user gave them.
        effective: The whole recipe with its defaults.

    Returns:
        True if it was written.
    """
    file = out / RECIPE
    # `given` stays as it was at first, though a later call may give the same recipe by other keys.
    if file.exists() and read_recipe_file(file)["effective"] == effective:
        return False
    write_text(file, yaml.safe_dump({"given": given, "effective": effective}, sort_keys=False))
    return True
