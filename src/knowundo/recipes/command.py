"""The command that makes the same run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from knowundo.recipes.presets import presets
from knowundo.recipes.reading import differing_keys, load_recipe

# What a recipe may leave to the machine; results differ by rounding with other values.
_MACHINE = ("device", "threads", "dtype")


def command_of(given: Mapping[str, Any], effective: Mapping[str, Any], out: str) -> str:
    """A line for a shell.

    Args:
        given: Keys of the recipe as they were given. Where it has the name of a preset, only what
            differs from the preset is named.
        effective: All keys; what was left to the machine is taken from here.
        out: Directory to write to.
    """
    name, whole = str(given.get("name", "")), dict(given)
    known = name in presets("recipes")
    keys = differing_keys(load_recipe(name)[1] if known else {}, whole)
    sets = {key: value for key, _, value in keys}
    model = effective.get("model", {})
    sets |= {f"model.{key}": model[key] for key in _MACHINE if key in model}
    words = ["knowundo", "run", *(["--config", name] if known else [])]
    for key, value in sets.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        words += ["--set", f"{key}={shown}"]
    return shlex.join([*words, "--out", out])
