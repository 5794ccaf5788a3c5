"""Presets: named recipes and methods that lie in the package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from knowundo.errors import unknown
from knowundo.recipes.yaml import parse_yaml

_PRESETS = files("knowundo") / "presets"


def _folder(kind: str) -> Traversable:
    return _PRESETS / kind


def presets(kind: str) -> dict[str, str]:
    """Names of the presets of a kind (`recipes` or `methods`) and what their first lines say."""
    found = {}
    for file in sorted(_folder(kind).iterdir(), key=lambda item: item.name):
        if file.name.endswith(".yaml"):
            lines = file.read_text(encoding="utf-8").splitlines()
            comment = [line.lstrip("# ") for line in lines if line.startswith("#")]
            found[file.name.removesuffix(".yaml")] = " ".join(comment)
    return found


def read_preset(kind: str, name: str) -> dict[str, Any]:
    """A preset's keys.

    Raises:
        BadInput: there is none of that name; suggests the nearest.
    """
    if name not in (known := presets(kind)):
        raise unknown(f"preset ({kind})", name, known)
    text = (_folder(kind) / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(parse_yaml(text, name))


def named_or_all(given: Sequence[Any]) -> list[Any]:
    """The variants of a recipe, with `{preset: all}` replaced by the presets that are left.

    It stands for every preset of a method that no other variant of the list names and that its own
    list `except` does not hold, in the order of their names. Its other keys are those of each.

    Raises:
        BadInput: `except` holds a name that no preset has; suggests the nearest.
        ValueError: `except` is no list.
    """
    # As texts: a recipe may hold anything, and not all of it can be looked up.
    named = {str(one.get("preset")) for one in given if isinstance(one, dict)}
    found = list[Any]()
    for one in given:
        if not isinstance(one, dict) or one.get("preset") != "all":
            found.append(one)
            continue
        keys = {key: value for key, value in one.items() if key not in ("preset", "except")}
        left_out = one.get("except", [])
        if not isinstance(left_out, list):
            raise ValueError("except is a list of presets such as [meow, relearn]")
        known, left_out = presets("methods"), [str(name) for name in left_out]
        for name in left_out:
            if name not in known:
                raise unknown("preset (methods)", name, known)
        found += [{"preset": n, **keys} for n in known if n not in named.union(left_out)]
    return found
